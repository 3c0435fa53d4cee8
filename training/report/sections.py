"""What a report shows: each function gives a section, or None where it does not apply."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from training.evaluate import Items, posteriors
from training.evaluation import Evaluation
from training.geometry import lerp, principal_components, slerp
from training.latent_statistics import ACTIVE_RATE, moments
from training.model import DrawsPixels, Model, Quantized
from training.models.pixelcnn import logistic
from training.report.charts import bars, curves, points
from training.report.page import Charts, Picture, Rows, Section
from training.report.tiles import columns, strip

_TRAVERSED = 10
_TRAVERSAL = 3.0
_POINTS = 2000
_EMBEDDED = 1000
_MINUS = "\N{MINUS SIGN}"


@dataclass(frozen=True)
class Scene:
    """A model in eval mode, the items that it is shown on, and their posteriors' [N, L].

    `label_names[k]` is what label k is called; empty if the labels mean nothing. `limits` are the
    values that are drawn black and white. `codes` and `log_variances` are None for a model whose
    latents are no numbers, or not those that its encoder gives.
    """

    model: Model
    items: Items
    label_names: tuple[str, ...]
    limits: tuple[float, float]
    codes: Tensor | None
    log_variances: Tensor | None

    def decode(self, codes: Tensor, label: Tensor | None) -> Tensor:
        """[N, L], any device -> observations [N, C, H, W]."""
        device = self.items.observations.device
        latents = codes.float().to(device).view(-1, *self.model.latent_shape)
        return self.model.decode(latents, self.label(label))

    def label(self, label: Tensor | None) -> Tensor | None:
        """Labels for a model that takes some."""
        if self.model.label_count is None or label is None:
            return None
        return label.to(self.items.observations.device)

    @property
    def labels(self) -> Tensor | None:
        """[N] on the CPU, if they mean something."""
        return (
            self.items.labels.cpu() if self.label_names and self.items.labels is not None else None
        )


def scene(model: Model, items: Items, label_names: tuple[str, ...] = ()) -> Scene:
    """The first 2000 of the items as a scene."""
    labels, factors = items.labels, items.factors
    shown = Items(
        items.observations[:_POINTS],
        None if labels is None else labels[:_POINTS],
        None if factors is None else factors[:_POINTS],
    )
    low, high = (value.item() for value in shown.observations.aminmax())
    limits = (0.0, 1.0) if low >= 0 and high <= 1 else (low, high)
    codes = log_variances = None
    if not isinstance(model, Quantized):
        codes, log_variances = posteriors(model, shown)
        if codes.shape[1] != math.prod(model.latent_shape):
            codes = log_variances = None
    return Scene(model, shown, label_names, limits, codes, log_variances)


def training_curves(model: Model, history: Sequence[Mapping[str, float | int]]) -> Section | None:
    """ELBO, rate and distortion over epochs, from the lines of metrics.jsonl."""
    titles = {"distortion": "distortion"}
    if model.bounds_likelihood:
        titles = {"negative_elbo": "ELBO", "rate": "rate"} | titles
    over = "epoch" if all("epoch" in line for line in history) else "step"
    panels = {}
    for name, title in titles.items():
        sign = -1 if title == "ELBO" else 1
        lines = {}
        for split in ("train", "held_out", "test"):
            key = f"{split}_{name}"
            pairs = [(line[over], sign * line[key]) for line in history if key in line]
            if pairs:
                lines[split.replace("_", " ")] = ([x for x, _ in pairs], [y for _, y in pairs])
        if lines:
            panels[title] = lines
    if not panels:
        return None
    text = "The first steps may lie outside."
    if model.bounds_likelihood:
        text = (
            "The ELBO is minus rate and distortion, of weight 1 and without what else the "
            f"objective adds. {text}"
        )
    return Section("Training", text, [Charts([curves(panels, over)])])


def reconstructions(scene: Scene) -> Section:
    """Observations above what their latents decode to."""
    model = scene.model
    rows: list[tuple[str, Picture] | None] = []
    count = columns(model.observation_shape)
    observations = scene.items.observations[: 2 * count]
    labels = None if scene.items.labels is None else scene.items.labels[: 2 * count]
    noise = torch.zeros(len(observations), *model.noise_shape, device=observations.device)
    label = scene.label(labels)
    latents, _, _ = model.encode(observations, noise, label)
    reconstructed = model.decode(latents, label)
    for start in range(0, len(observations), count):
        end = start + count
        for name, shown in (("observation", observations), ("reconstruction", reconstructed)):
            alt = f"{name}s of items {start} to {min(end, len(observations)) - 1}"
            rows.append((name, strip(shown[start:end], alt, scene.limits)))
        rows.append(None)
    latents_text = "their codes" if isinstance(model, Quantized) else "the mean of their posterior"
    text = f"Items as the model sees them, above the observation decoded from {latents_text}."
    return Section("Reconstructions", text, [Rows(rows[:-1])])


def prior_samples(scene: Scene, generator: torch.Generator) -> Section:
    """Decoded draws from the prior: a row for each label if the model takes labels."""
    model, device = scene.model, scene.items.observations.device
    count = columns(model.observation_shape)
    names = scene.label_names or tuple(map(str, range(model.label_count or 0)))
    kinds = list(enumerate(names)) if model.label_count else [(0, "")] * 5
    rows = []
    for label_number, name in kinds[:20]:
        noise = torch.randn(count, *model.noise_shape, generator=generator).to(device)
        label = scene.label(torch.full((count,), label_number))
        latents = model.sample_prior(noise, label)
        alt = f"{count} samples from the prior" + (f" of label {name}" if name else "")
        rows.append((name, strip(model.decode(latents, label), alt, scene.limits)))
        if isinstance(model, DrawsPixels):
            shape = (count, *model.observation_shape[1:])
            pixel_noise = logistic(torch.randn(shape, generator=generator)).to(device)
            pixels = model.draw(latents, pixel_noise)
            rows.append(("drawn", strip(pixels, f"{alt}, their pixels drawn", scene.limits)))
    text = "Means of the likelihood for latents drawn from the prior."
    if model.label_count:
        text += " Each row was asked for its label."
    if isinstance(model, DrawsPixels):
        text += " Below each row, pixels that are drawn given the same latents and one another."
    return Section("Samples from the prior", text, [Rows(rows)])


def traversals(scene: Scene, rates: Sequence[float]) -> Section | None:
    """One latent moves through q(z), the others stay at one item's posterior mean."""
    if scene.codes is None or scene.log_variances is None:
        return None
    mean, covariance = moments(scene.codes, scene.log_variances)
    deviations = covariance.diagonal().sqrt()
    by_rate = len(rates) == len(mean)
    activity = torch.tensor(rates) if by_rate else scene.codes.var(0)
    order = activity.argsort(descending=True, stable=True)[:_TRAVERSED].tolist()
    steps = columns(scene.model.observation_shape, 11)
    places = torch.linspace(-_TRAVERSAL, _TRAVERSAL, steps)
    label = None if scene.items.labels is None else scene.items.labels[:1].expand(steps)
    rows = []
    for unit in order:
        codes = scene.codes[:1].repeat(steps, 1)
        codes[:, unit] = (mean[unit] + deviations[unit] * places).float()
        activity_text = f" · {rates[unit]:.2f} nats" if by_rate else ""
        alt = f"latent {unit} from -{_TRAVERSAL:g} to {_TRAVERSAL:g} standard deviations"
        decoded = scene.decode(codes, label)
        rows.append((f"latent {unit}{activity_text}", strip(decoded, alt, scene.limits)))
    head = tuple(
        "0" if abs(place) < 0.05 else f"{place:+.1f}".replace("-", _MINUS)
        for place in places.tolist()
    )
    most = "highest rate" if by_rate else "most varied means"
    text = (
        f"The {len(rows)} latents with the {most}. Each row moves one of them, in standard "
        "deviations of q(z), and leaves the others at the posterior mean of the first item."
    )
    return Section("Traversals", text, [Rows(rows, head)])


def interpolations(scene: Scene) -> Section | None:
    """Straight lines and arcs between posterior means of different classes."""
    pairs = _pairs(scene, 3, same=scene.model.label_count is not None)
    if scene.codes is None or not pairs:
        return None
    steps = columns(scene.model.observation_shape, 11)
    rows: list[tuple[str, Picture] | None] = []
    for first, second in pairs:
        ends = scene.codes[first], scene.codes[second]
        label = None if scene.items.labels is None else scene.items.labels[first].expand(steps)
        for name, path in (("linear", lerp), ("spherical", slerp)):
            alt = f"{name} interpolation from item {first} to item {second}"
            decoded = scene.decode(path(*ends, steps), label)
            rows.append((name, strip(decoded, alt, scene.limits)))
        rows.append(None)
    text = (
        "From one item's posterior mean to another's, by the straight line and by the arc, "
        "which keeps the norm that latents have where the line is shorter."
    )
    return Section("Interpolations", text, [Rows(rows[:-1])])


def arithmetic(scene: Scene) -> Section | None:
    """An item of one class, minus that class's mean code, plus another's."""
    pairs = _pairs(scene, 5)
    if scene.codes is None or scene.labels is None or scene.model.label_count or not pairs:
        return None
    rows = []
    for first, second in pairs:
        before, after = int(scene.labels[first]), int(scene.labels[second])
        means = [scene.codes[scene.labels == label].mean(0) for label in (before, after)]
        own = scene.codes[first]
        parts = torch.stack([own, *means, own - means[0] + means[1]])
        decoded = torch.cat(
            [scene.items.observations[first : first + 1], scene.decode(parts, None)]
        )
        a, b = scene.label_names[before], scene.label_names[after]
        alt = f"an item of class {a}, its mean code, the mean codes of {a} and {b}, and the result"
        rows.append((f"{a} {_MINUS} mean {a} + mean {b}", strip(decoded, alt, scene.limits)))
    head = ("item", "its code", f"{_MINUS} mean", "+ mean", "result")
    text = (
        "A mean code is the mean of a class's posterior means. The result keeps what is the item's "
        "own, such as slant and weight, where the latent space is regular enough."
    )
    return Section("Latent arithmetic", text, [Rows(rows, head)])


def latent_space(scene: Scene) -> Section | None:
    """Posterior means by principal components and by t-SNE, coloured by class."""
    if scene.codes is None or len(scene.codes) < 3 or not scene.codes.var(0).any():
        return None
    labels = None if scene.labels is None else scene.labels.numpy()
    if scene.codes.shape[1] > 2:
        projected, shares = principal_components(scene.codes)
        axes = tuple(
            f"component {i + 1} ({share:.0%} of variance)" for i, share in enumerate(shares)
        )
    else:
        projected = torch.nn.functional.pad(scene.codes, (0, 2 - scene.codes.shape[1]))
        axes = ("latent 0", "latent 1")
    title = "principal components" if scene.codes.shape[1] > 2 else "the latents themselves"
    charts = [points(projected.numpy(), labels, scene.label_names, title, (axes[0], axes[1]))]
    if scene.codes.shape[1] > 2:
        embedded = _tsne(scene.codes[:_EMBEDDED])
        few = None if labels is None else labels[:_EMBEDDED]
        charts.append(points(embedded, few, scene.label_names, "t-SNE"))
    text = (
        f"Posterior means of {len(scene.codes)} items. In t-SNE only neighbourhoods mean "
        "something, not distances between groups or their sizes."
    )
    return Section("Latent space", text, [Charts(charts)])


def rate_by_unit(scene: Scene, evaluation: Evaluation) -> Section | None:
    """The rate of each latent or group of latents as bars."""
    rates = evaluation.rate_by_unit
    if not rates:
        return None
    unit = "latent" if len(rates) == math.prod(scene.model.latent_shape) else "group"
    text = (
        f"Which {unit}s carry information. Above {ACTIVE_RATE:g} nats, the dashed line, one counts "
        "as active by rate."
    )
    return Section(f"Rate by {unit}", text, [Charts([bars(rates, ACTIVE_RATE, unit)])])


def _pairs(scene: Scene, count: int, same: bool = False) -> list[tuple[int, int]]:
    """Indices of items to go between: of the same label, else of labels not shown yet, or any."""
    labels = scene.items.labels if same or scene.labels is not None else None
    free = list(range(len(scene.items.observations)))
    if labels is None:
        return list(pairwise(free))[::2][:count]
    of_item, seen = labels.tolist(), set[int]()
    pairs: list[tuple[int, int]] = []
    for first in free:
        others = [
            other
            for other in free[first + 1 :]
            if (of_item[other] == of_item[first]) is same and of_item[other] not in seen
        ]
        if of_item[first] not in seen and others and len(pairs) < count:
            pairs.append((first, others[0]))
            seen |= {of_item[first], of_item[others[0]]}
    return pairs


def _tsne(codes: Tensor) -> NDArray[np.float32]:
    """[N, L] -> [N, 2], always the same; 500 steps, half the default, settle so few items."""
    from sklearn.manifold import TSNE  # takes a second to import

    perplexity = min(30.0, (len(codes) - 1) / 3)
    embedding = TSNE(perplexity=perplexity, init="random", max_iter=500, random_state=0, n_jobs=1)
    return np.asarray(embedding.fit_transform(codes.numpy()), np.float32)
