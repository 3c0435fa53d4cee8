"""How good a model is on a set of items: the numbers that apply to its family, and no others."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from training.bounds import LogWeight, prepared_bounds
from training.code_usage import code_usage
from training.data import Dataset
from training.disentanglement import mutual_information_gap
from training.evaluation import Evaluation
from training.label_agreement import label_agreement
from training.latent_statistics import (
    active_units,
    active_units_by_rate,
    maximum_mean_discrepancy,
    mismatch,
)
from training.likelihoods import binarize, bits_per_dim
from training.model import Costly, Gaussian, Model, Quantized

IMPORTANCE_SAMPLES = 500
IMPORTANCE_ITEMS = 1000
_BOUNDS = (1, 5, 50, 500)
SEED = 20140501
_CHUNK = 1000
_DRAWN_ITEMS = 10_000
_DRAWN_LATENTS = 2000


@dataclass(frozen=True)
class Items:
    """What a model is evaluated on.

    observations [N, C, H, W] float32, as the likelihood wants them; labels [N] int64; factors
    [N, F], the classes that the observations were drawn from.
    """

    observations: Tensor
    labels: Tensor | None = None
    factors: Tensor | None = None

    def to(self, device: str) -> "Items":
        """The same on a device; the factors stay, which no model sees."""
        labels = None if self.labels is None else self.labels.to(device)
        return Items(self.observations.to(device), labels, self.factors)


@dataclass(frozen=True)
class Effort:
    """How much is drawn.

    draws: of noise for each item's ELBO; None takes about 10000 items in all, so that a small set
    gets many. importance_samples: for the log-likelihood, of the first `importance_items`; None
    takes all items. With 0 samples there is no log-likelihood.
    """

    draws: int | None = None
    importance_samples: int = IMPORTANCE_SAMPLES
    importance_items: int | None = IMPORTANCE_ITEMS


def effort_for(model: Model) -> Effort:
    """What takes seconds to a minute."""
    if isinstance(model, Costly):
        return Effort(None, model.importance_samples, model.importance_items)
    return Effort()


@dataclass(frozen=True)
class MeanTerms:
    """Means over items and draws, in nats per item; rate_by_unit adds up to rate."""

    rate: float
    distortion: float
    rate_by_unit: tuple[float, ...]


def evaluate(
    model: Model,
    dataset: Dataset,
    effort: Effort | None = None,
    seed: int = SEED,
    classify: Callable[[Tensor], Tensor] | None = None,
    device: str = "cpu",
) -> Evaluation:
    """Evaluate on the test split; the same seed gives the same numbers. `classify` as below.

    `device` is where the model is; the draws for the log-likelihood are made there. Bernoulli
    models see one binarization, drawn from the seed. The mode of `model` is left as it was.
    """
    generator = torch.Generator().manual_seed(seed)
    items = test_items(model, dataset, generator).to(device)

    def bits(nats: float) -> float | None:
        if dataset.maximum is None:
            return None  # numbers of any range have no bins
        dims = items.observations[0].numel()
        return bits_per_dim(model.likelihood_name, nats, dims, maximum=dataset.maximum)

    training = model.training
    model.eval()
    try:
        evaluation = evaluate_items(model, items, generator, bits, effort, classify)
    finally:
        model.train(training)
    if dataset.density is not None and evaluation.bounds:
        count = evaluation.importance_items
        truth = float(dataset.density.log_likelihood(dataset.test[:count]).mean())
        first, last = evaluation.bounds[0], evaluation.bounds[-1]
        evaluation = replace(
            evaluation,
            elbo_gap=abs(truth - first.value),
            log_likelihood_gap=abs(truth - last.value),
        )
    return evaluation


@torch.no_grad()
def evaluate_items(
    model: Model,
    items: Items,
    generator: torch.Generator,
    bits: Callable[[float], float | None] | None = None,
    effort: Effort | None = None,
    classify: Callable[[Tensor], Tensor] | None = None,
) -> Evaluation:
    """Evaluate a model in eval mode on the device of the items; `generator` is the CPU's.

    `bits` turns nats per item into bits per dim. `classify` maps observations to the scores
    [N, label_count] with which conditional samples are read.
    """
    effort = effort or effort_for(model)
    terms = mean_terms(model, items, generator, effort.draws)
    values: dict[str, Any] = {"distortion": terms.distortion, "items": len(items.observations)}
    if model.bounds_likelihood:
        negative_elbo = terms.rate + terms.distortion
        values |= {"elbo": -negative_elbo, "rate": terms.rate}
        if not isinstance(model, Quantized):  # whose one rate is that of all codes
            values["rate_by_unit"] = terms.rate_by_unit
            by_unit = torch.tensor([terms.rate_by_unit])
            values["active_units_by_rate"] = active_units_by_rate(by_unit)
        if bits is not None:
            values["bits_per_dim"] = bits(negative_elbo)
    values |= _reconstruction(model, items)
    if isinstance(model, Quantized):
        values |= _codes(model, items)
    else:
        if model.bounds_likelihood and effort.importance_samples:
            values |= _bounds(model, items, generator, effort)
        values |= _latents(model, items, generator)
    if classify is not None and model.label_count is not None:

        def sample(label: Tensor) -> Tensor:
            label = label.to(items.observations.device)
            noise = _noise(model, label, generator)
            return model.decode(model.sample_prior(noise, label), label).cpu()

        shares = label_agreement(sample, classify, model.label_count)
        values["label_agreement"] = shares.mean().item()
    return Evaluation(**values)


@torch.no_grad()
def mean_terms(
    model: Model, items: Items, generator: torch.Generator, draws: int | None = 1
) -> MeanTerms:
    """The ELBO's terms over `draws` of noise for each item; None: about 10000 items in all."""
    count = len(items.observations)
    draws = draws or max(1, round(_DRAWN_ITEMS / count))
    rates: Tensor | None = None
    distortion = 0.0
    for _ in range(draws):
        for observations, label in _chunks(model, items):
            noise = _noise(model, observations, generator)
            terms = model.elbo_terms(observations, noise, label)
            sums = terms.rate.double().sum(0).cpu() / (count * draws)
            rates = sums if rates is None else rates + sums
            distortion += terms.distortion.double().sum().item() / (count * draws)
    assert rates is not None
    return MeanTerms(rates.sum().item(), distortion, tuple(rates.tolist()))


@torch.no_grad()
def posteriors(model: Model, items: Items) -> tuple[Tensor, Tensor]:
    """Mean and log_variance of each item's posterior, on the CPU: [N, L] twice."""
    parts = []
    for observations, label in _chunks(model, items):
        noise = observations.new_zeros(len(observations), *model.noise_shape)
        _, mean, log_variance = model.encode(observations, noise, label)
        parts.append((mean.flatten(1).float().cpu(), log_variance.flatten(1).float().cpu()))
    means, log_variances = zip(*parts, strict=True)
    return torch.cat(means), torch.cat(log_variances)


def test_items(model: Model, dataset: Dataset, generator: torch.Generator) -> Items:
    """The test split as the model's likelihood wants it: binarized for a Bernoulli."""
    observations = torch.from_numpy(dataset.observations("test"))
    if model.likelihood_name == "bernoulli":
        observations = binarize(observations, generator)
    factors = None if dataset.factors is None else torch.from_numpy(dataset.factors.test)
    return Items(observations, torch.from_numpy(dataset.test_labels), factors)


def _reconstruction(model: Model, items: Items) -> dict[str, float]:
    """How far what the posterior mean decodes to is from the items, and how sharp it is."""
    total, energy, wanted = 0.0, 0.0, 0.0
    for observations, label in _chunks(model, items):
        noise = observations.new_zeros(len(observations), *model.noise_shape)
        decoded = model.decode(model.encode(observations, noise, label)[0], label)
        total += (decoded - observations).square().double().sum().item()
        energy += gradient_energy(decoded)
        wanted += gradient_energy(observations)
    values = {"mean_squared_error": total / items.observations.numel()}
    return values if not wanted else values | {"gradient_energy": energy / wanted}


def gradient_energy(images: Tensor) -> float:
    """The sum of squared differences of neighbouring pixels of [N, C, H, W]."""
    across, down = images.diff(dim=3), images.diff(dim=2)
    return across.square().double().sum().item() + down.square().double().sum().item()


def _codes(model: Quantized, items: Items) -> dict[str, Any]:
    batches = torch.split(items.observations, _CHUNK)
    usage = code_usage((model.codes(batch, None) for batch in batches), model.code_count)
    return {
        "used_codes": usage.used / usage.size,
        "code_count": usage.size,
        "perplexity": usage.perplexity,
    }


def _latents(model: Model, items: Items, generator: torch.Generator) -> dict[str, Any]:
    means, log_variances = posteriors(model, items)
    values: dict[str, Any] = {"active_units": active_units(means)}
    if items.factors is not None:
        gap = mutual_information_gap(means.numpy(), items.factors.cpu().numpy())
        values["mutual_information_gap"] = gap.score
    if not _has_standard_prior(model, items):
        return values
    drawn = torch.linspace(0, len(means) - 1, min(len(means), _DRAWN_LATENTS)).long()
    noise = torch.randn(len(drawn), means.shape[1], generator=generator)
    found = mismatch(noise, means, log_variances, drawn)
    latents = means[drawn] + torch.exp(0.5 * log_variances[drawn]) * noise
    values |= {
        "mutual_information": found.mutual_information,
        "mismatch": found.divergence,
        "moment_mismatch": found.moments,
    }
    if len(latents) > 1:
        prior = torch.randn(latents.shape, generator=generator)
        values["discrepancy"] = maximum_mean_discrepancy(latents, prior)
    return values


def _has_standard_prior(model: Model, items: Items) -> bool:
    """Whether the posteriors are normal and the prior of each of the items is N(0, 1)."""
    if not model.bounds_likelihood or not isinstance(model, Gaussian):
        return False
    return not any(parameter.any() for parameter in model.prior(_label(model, items)))


def _bounds(
    model: Model, items: Items, generator: torch.Generator, effort: Effort
) -> dict[str, Any]:
    samples = effort.importance_samples
    ks = [k for k in _BOUNDS if k < samples] + [samples]
    observations = items.observations[: effort.importance_items]
    label = _label(model, items)
    if observations.device.type != "cpu":  # its own draws come a hundred times as fast
        seed = generator.initial_seed()
        generator = torch.Generator(observations.device).manual_seed(seed)
    bounds = prepared_bounds(
        partial(_prepare, model),
        observations,
        model.noise_shape,
        ks,
        generator,
        None if label is None else label[: effort.importance_items],
    )
    return {
        "log_likelihood": bounds[-1].value,
        "log_likelihood_standard_error": bounds[-1].standard_error,
        "effective_sample_size": bounds[-1].effective_sample_size,
        "importance_samples": samples,
        "importance_items": len(observations),
        "bounds": tuple(bounds),
    }


def _prepare(model: Model, items: Tensor, labels: Tensor | None) -> LogWeight:
    """Log-weights of a model; a Gaussian one encodes each item once, whatever the draws."""
    if not isinstance(model, Gaussian):
        return partial(_log_weight, model)
    gaussian = model
    mean, log_variance = gaussian.posterior(items, labels)
    prior_mean, prior_log_variance = gaussian.prior(labels)

    def log_weight(rows: Tensor, noise: Tensor, label: Tensor | None) -> Tensor:
        by_draw = noise.view(-1, *mean.shape)
        latents = mean + torch.exp(0.5 * log_variance) * by_draw
        squares = (latents - prior_mean).square() * torch.exp(-prior_log_variance)
        # The constants of both densities cancel.
        ratio = by_draw.square() + log_variance - squares - prior_log_variance
        distortion = gaussian.distortion(rows, latents.flatten(0, 1), label)
        return 0.5 * ratio.sum(-1).flatten() - distortion

    return log_weight


def _log_weight(model: Model, rows: Tensor, noise: Tensor, label: Tensor | None) -> Tensor:
    weight = model.elbo_terms(rows, noise, label).log_weight
    assert weight is not None, "a model is evaluated in eval mode"
    return weight


def _label(model: Model, items: Items) -> Tensor | None:
    return None if model.label_count is None else items.labels


def _chunks(model: Model, items: Items) -> Iterator[tuple[Tensor, Tensor | None]]:
    label = _label(model, items)
    for start in range(0, len(items.observations), _CHUNK):
        chunk = slice(start, start + _CHUNK)
        yield items.observations[chunk], None if label is None else label[chunk]


def _noise(model: Model, like: Tensor, generator: torch.Generator) -> Tensor:
    """Standard normal, a row for each of `like` and on its device."""
    return torch.randn(len(like), *model.noise_shape, generator=generator).to(like.device)
