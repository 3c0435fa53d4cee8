"""How good a model is on the test split."""

from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from training.data import Dataset
from training.likelihoods import binarize, bits_per_dim
from training.model import Model

ACTIVE_UNIT_VARIANCE = 0.01
_SEED = 20140501
_CHUNK = 1000
_DRAWN_ITEMS = 10_000


@dataclass(frozen=True)
class Evaluation:
    """Means over the test split, in nats per item.

    `active_units` counts the latents whose posterior mean varies over observations by more than
    0.01 (Burda et al. 2016). `log_likelihood` is reserved for an importance-weighted estimate.
    """

    elbo: float
    rate: float
    distortion: float
    bits_per_dim: float
    active_units: int
    log_likelihood: float | None = None

    def to_json(self) -> dict[str, float | int | None]:
        """The fields by name."""
        return asdict(self)


@torch.no_grad()
def evaluate(
    model: Model, dataset: Dataset, draws: int | None = None, seed: int = _SEED
) -> Evaluation:
    """Evaluate on the test split; the same seed gives the same numbers.

    Bernoulli models see one binarization, drawn from the seed. The distortion is averaged over
    `draws` of noise; None takes enough for about 10000 items in all, so that a small test split
    gets many. The mode of `model` is left as it was.
    """
    generator = torch.Generator().manual_seed(seed)
    observations = test_observations(model, dataset, generator)
    count = len(observations)
    draws = draws or max(1, round(_DRAWN_ITEMS / count))
    rate = distortion = 0.0
    training = model.training
    model.eval()
    for _ in range(draws):
        for start in range(0, count, _CHUNK):
            chunk = observations[start : start + _CHUNK]
            label = test_labels(model, dataset, start, len(chunk))
            noise = torch.randn(len(chunk), *model.noise_shape, generator=generator)
            terms = model.elbo_terms(chunk, noise, label)
            rate += terms.rate.double().sum().item() / (count * draws)
            distortion += terms.distortion.double().sum().item() / (count * draws)
    means = posterior_means(model, observations, test_labels(model, dataset, 0, count))
    model.train(training)
    dims = observations[0].numel()
    return Evaluation(
        elbo=-(rate + distortion),
        rate=rate,
        distortion=distortion,
        bits_per_dim=bits_per_dim(
            model.likelihood_name, rate + distortion, dims, maximum=dataset.maximum
        ),
        active_units=int((means.var(0, correction=0) > ACTIVE_UNIT_VARIANCE).sum()),
    )


def test_observations(model: Model, dataset: Dataset, generator: torch.Generator) -> Tensor:
    """The test split [N, C, H, W] float32 as the model's likelihood wants it."""
    observations = torch.from_numpy(dataset.observations("test"))
    if model.likelihood_name == "bernoulli":
        return binarize(observations, generator)
    return observations


def test_labels(model: Model, dataset: Dataset, start: int, count: int) -> Tensor | None:
    """Labels [count] int64 of the test split from `start`, for a model that knows labels."""
    if model.label_count is None:
        return None
    return torch.from_numpy(dataset.test_labels[start : start + count])


@torch.no_grad()
def posterior_means(model: Model, observations: Tensor, label: Tensor | None = None) -> Tensor:
    """[N, C, H, W] -> [N, L], in chunks."""
    means = []
    for start in range(0, len(observations), _CHUNK):
        chunk = observations[start : start + _CHUNK]
        labels = None if label is None else label[start : start + _CHUNK]
        noise = torch.zeros(len(chunk), *model.noise_shape)
        means.append(model.encode(chunk, noise, labels)[1])
    return torch.cat(means)
