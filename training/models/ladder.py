"""Family "ladder": a hierarchy of latent groups, coarse to fine (Child 2021, "Very deep VAEs").

A bottom-up network reads the observation; a top-down network draws one group after the other, each
from a Gaussian that depends on the groups above: the prior on them alone, the posterior on the
observation too. Blocks are residual with pre-activations and a bottleneck; a block's last layer
starts small by the depth of the network, the priors' at zero, so that a deep one starts calm.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.errors import require
from training.likelihoods import GaussianStd, Likelihood, LikelihoodName, build_likelihood
from training.model import Layout, Terms
from training.models.checks import check_sizes
from training.models.gaussians import gaussian_rate, log_density, reparameterize

_LOG_STD_BOUND = 5.0  # a group's standard deviation lies within exp(-5) and exp(5)


@dataclass(frozen=True)
class LadderConfig:
    """`groups` is the number of latent groups of each stage, coarse to fine, and `latent_channels`
    what a group of that stage has at each position.

    The first stage has one position; the last half the height and width of the observation, and
    each stage between half of the next. `width` is the channels of all features, `bottleneck` those
    inside a block, and `blocks` how many read the observation in each stage.
    """

    groups: tuple[int, ...] = (1, 2, 1)
    latent_channels: tuple[int, ...] = (32, 4, 2)
    width: int = 32
    bottleneck: int = 16
    blocks: int = 1
    likelihood: LikelihoodName = "bernoulli"
    gaussian_std: GaussianStd = "learned"
    family: Literal["ladder"] = "ladder"

    def __post_init__(self) -> None:
        check_sizes(1, (self.width, self.bottleneck, self.blocks), self.gaussian_std)
        require(min(self.groups, default=0) >= 1, "model.groups must be at least 1 in each stage")
        require(len(self.groups) >= 2, "model.groups needs at least two stages")
        require(
            len(self.latent_channels) == len(self.groups) and min(self.latent_channels) >= 1,
            "model.latent_channels must be at least 1, one number for each stage of model.groups",
        )

    def build(self, layout: Layout) -> "Ladder":
        """A model with fresh weights from torch's default generator.

        Raises TrainingError if the observation cannot be halved so often.
        """
        return Ladder(self, build_likelihood(self.likelihood, self.gaussian_std, layout), layout)


class Group(NamedTuple):
    """Where a latent group lies in the flat latents: [offset, offset + product of shape)."""

    name: str
    shape: tuple[int, int, int]
    offset: int

    @property
    def end(self) -> int:
        """The offset behind it."""
        return self.offset + math.prod(self.shape)


class Block(nn.Module):
    """1x1, 3x3, 3x3, 1x1 convolutions with SiLU before each; 1x1 only for a single position."""

    def __init__(self, inputs: int, inner: int, outputs: int, size: tuple[int, int]) -> None:
        super().__init__()
        kernel = 3 if min(size) > 2 else 1
        self.layers = nn.Sequential(
            nn.SiLU(),
            nn.Conv2d(inputs, inner, 1),
            nn.SiLU(),
            nn.Conv2d(inner, inner, kernel, padding=kernel // 2),
            nn.SiLU(),
            nn.Conv2d(inner, inner, kernel, padding=kernel // 2),
            nn.SiLU(),
            nn.Conv2d(inner, outputs, 1),
        )

    @torch.no_grad()
    def scale_output(self, factor: float) -> "Block":
        """Start with a smaller last layer."""
        last = self.layers[-1]
        assert isinstance(last, nn.Conv2d)
        last.weight.mul_(factor)
        if factor == 0:
            assert last.bias is not None
            last.bias.zero_()
        return self

    def forward(self, values: Tensor) -> Tensor:
        """[N, inputs, H, W] -> [N, outputs, H, W]."""
        outputs: Tensor = self.layers(values)
        return outputs


class TopDown(nn.Module):
    """One latent group: its posterior, its prior, and what follows from its draw."""

    def __init__(
        self, config: LadderConfig, channels: int, size: tuple[int, int], scale: float
    ) -> None:
        super().__init__()
        width, inner = config.width, config.bottleneck
        self.channels = channels
        self.posterior = Block(2 * width, inner, 2 * channels, size)
        self.prior = Block(width, inner, 2 * channels + width, size).scale_output(0)
        self.project = nn.Conv2d(channels, width, 1)
        with torch.no_grad():
            self.project.weight.mul_(scale)
        self.block = Block(width, inner, width, size).scale_output(scale)

    def parameters_of_prior(self, features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """mean, log_variance [N, c, H, W] in float32, and what the features gain besides."""
        raw = self.prior(features)
        mean, log_variance = _gaussian(raw[:, : 2 * self.channels])
        return mean, log_variance, raw[:, 2 * self.channels :]

    def parameters_of_posterior(self, features: Tensor, seen: Tensor) -> tuple[Tensor, Tensor]:
        """mean and log_variance [N, c, H, W] in float32."""
        return _gaussian(self.posterior(torch.cat([features, seen], dim=1)))

    def follow(self, features: Tensor, gained: Tensor, latents: Tensor) -> Tensor:
        """The features behind this group."""
        features = features + gained + self.project(latents)
        following: Tensor = features + self.block(features)
        return following


# Draws a group: gets its index, block, the features before it and the prior's parameters.
Draw = Callable[[int, TopDown, Tensor, Tensor, Tensor], Tensor]


class Ladder(nn.Module):
    """See the module. Latents and noise are flat, [N, sum of all groups]; `groups` says where each
    lies."""

    family = "ladder"
    label_count: None = None

    def __init__(self, config: LadderConfig, likelihood: Likelihood, layout: Layout) -> None:
        super().__init__()
        self.likelihood = likelihood
        self.likelihood_name: str = likelihood.name
        self.observation_shape = layout.observation_shape
        channels, *size = layout.observation_shape
        sizes = _sizes((size[0], size[1]), len(config.groups))
        scale = 1 / math.sqrt(sum(config.groups) + config.blocks * len(sizes))
        width, inner = config.width, config.bottleneck
        self.stem = nn.Conv2d(channels, width, 4, stride=2, padding=1)
        self.bottom_up = nn.ModuleList()  # coarse to fine, as all lists here
        self.rise = nn.ModuleList()  # from a stage to the next
        self.top_down = nn.ModuleList()
        self.stages: list[int] = []  # of each group
        self.sizes = sizes
        groups: list[Group] = []
        for stage, (count, latent_channels) in enumerate(
            zip(config.groups, config.latent_channels, strict=True)
        ):
            blocks = [
                Block(width, inner, width, sizes[stage]).scale_output(scale)
                for _ in range(config.blocks)
            ]
            self.bottom_up.append(nn.ModuleList(blocks))
            if stage == 1:
                self.rise.append(nn.ConvTranspose2d(width, width, sizes[1]))
            elif stage > 1:
                self.rise.append(nn.Upsample(scale_factor=2, mode="nearest"))
            for number in range(count):
                shape = (latent_channels, *sizes[stage])
                name = f"stage{stage}.{number}"
                groups.append(Group(name, shape, groups[-1].end if groups else 0))
                self.top_down.append(TopDown(config, latent_channels, sizes[stage], scale))
                self.stages.append(stage)
        self.groups = tuple(groups)
        self.collect = nn.Conv2d(width, width, sizes[1])  # all positions into one
        self.start = nn.Parameter(torch.zeros(1, width, 1, 1))
        outputs = likelihood.parameter_shape(self.observation_shape)[0]
        self.head = nn.Sequential(
            nn.SiLU(), nn.ConvTranspose2d(width, outputs, 4, stride=2, padding=1)
        )
        self.noise_shape: tuple[int, ...] = (groups[-1].end,)
        self.latent_shape: tuple[int, ...] = (groups[-1].end,)

    def encode(
        self, observations: Tensor, noise: Tensor, label: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """latents, mean and log_variance of the posterior along the draw, each [N, L] flat."""
        drawn = self._draw_posterior(observations, noise)
        flat = [torch.cat([each.flatten(1) for each in parts], dim=1) for parts in drawn.flat()]
        return flat[0], flat[1], flat[2]

    def sample_prior(self, noise: Tensor, label: Tensor | None = None) -> Tensor:
        """[N, L] standard normal -> latents [N, L], each group from its prior given those above."""
        drawn: list[Tensor] = []

        def draw(index: int, _: TopDown, __: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
            latents = reparameterize(mean, log_variance, self._group(noise, index))
            drawn.append(latents.flatten(1))
            return latents

        self._descend(noise, draw)
        return torch.cat(drawn, dim=1)

    def decode(self, latents: Tensor, label: Tensor | None = None) -> Tensor:
        """[N, L] -> observations [N, C, H, W] in [0, 1]: the mean of the likelihood."""

        def given(index: int, *_: object) -> Tensor:
            return self._group(latents, index)

        return self.likelihood.mean(self._likelihood_parameters(self._descend(latents, given)))

    def elbo_terms(self, observations: Tensor, noise: Tensor, label: Tensor | None = None) -> Terms:
        """rate [N, groups], distortion, log_weight and auxiliary [N] for one draw."""
        drawn = self._draw_posterior(observations, noise)
        distortion = self.likelihood.distortion(
            self._likelihood_parameters(drawn.features), observations
        )
        rates, ratio = [], -distortion
        for latents, posterior, prior in zip(
            drawn.latents, drawn.posteriors, drawn.priors, strict=True
        ):
            rates.append(gaussian_rate(*posterior, *prior).flatten(1).sum(1))
            density = log_density(latents, *prior) - log_density(latents, *posterior)
            ratio = ratio + density.flatten(1).sum(1)
        return Terms(torch.stack(rates, dim=1), distortion, ratio, torch.zeros_like(distortion))

    @torch.no_grad()
    def initialize_output(self, mean_observation: Tensor) -> None:
        """Start the head at the mean [C, H, W] of the training split, by its bias."""
        last = self.head[-1]
        assert isinstance(last, nn.ConvTranspose2d)
        self.likelihood.initialize(last, mean_observation)

    def _draw_posterior(self, observations: Tensor, noise: Tensor) -> "_Drawn":
        seen = self._ascend(observations)
        drawn = _Drawn([], [], [], noise)

        def draw(
            index: int, block: TopDown, features: Tensor, mean: Tensor, log_variance: Tensor
        ) -> Tensor:
            posterior = block.parameters_of_posterior(features, seen[self.stages[index]])
            latents = reparameterize(*posterior, self._group(noise, index))
            drawn.latents.append(latents)
            drawn.posteriors.append(posterior)
            drawn.priors.append((mean, log_variance))
            return latents

        return drawn._replace(features=self._descend(noise, draw))

    def _ascend(self, observations: Tensor) -> list[Tensor]:
        """What each stage sees of the observations, coarse to fine."""
        _, height, width = self.observation_shape
        even = F.pad(2 * observations - 1, (0, width % 2, 0, height % 2))
        features = self.stem(even)
        seen: list[Tensor] = []
        for stage in reversed(range(len(self.sizes))):
            if stage == 0:
                features = self.collect(features)
            elif stage < len(self.sizes) - 1:
                features = F.avg_pool2d(features, 2, ceil_mode=True)
            blocks = self.bottom_up[stage]
            assert isinstance(blocks, nn.ModuleList)
            for block in blocks:
                features = features + block(features)
            seen.append(features)
        return seen[::-1]

    def _descend(self, batch: Tensor, draw: Draw) -> Tensor:
        """The features behind all groups; `batch` [N, ...] says how many items there are."""
        features = self.start.expand(batch.shape[0], -1, -1, -1)
        stage = 0
        for index, block in enumerate(self.top_down):
            assert isinstance(block, TopDown)
            if self.stages[index] > stage:
                stage += 1
                height, width = self.sizes[stage]
                features = self.rise[stage - 1](features)[:, :, :height, :width]
            mean, log_variance, gained = block.parameters_of_prior(features)
            latents = draw(index, block, features, mean, log_variance)
            features = block.follow(features, gained, latents)
        return features

    def _likelihood_parameters(self, features: Tensor) -> Tensor:
        """The likelihood's parameters."""
        _, height, width = self.observation_shape
        parameters: Tensor = self.head(features)[:, :, :height, :width]
        return parameters

    def _group(self, flat: Tensor, index: int) -> Tensor:
        group = self.groups[index]
        return flat[:, group.offset : group.end].reshape(-1, *group.shape)


class _Drawn(NamedTuple):
    """By group, coarse to fine; the Gaussians as mean and log_variance."""

    latents: list[Tensor]
    posteriors: list[tuple[Tensor, Tensor]]
    priors: list[tuple[Tensor, Tensor]]
    features: Tensor

    def flat(self) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        """latents, means and log_variances."""
        means, log_variances = zip(*self.posteriors, strict=True)
        return self.latents, list(means), list(log_variances)


def _gaussian(raw: Tensor) -> tuple[Tensor, Tensor]:
    """[N, 2 c, H, W] -> mean and log_variance, float32, the latter softly bounded."""
    mean, raw_log_std = raw.float().chunk(2, dim=1)
    return mean, 2 * _LOG_STD_BOUND * torch.tanh(raw_log_std / _LOG_STD_BOUND)


def _sizes(size: tuple[int, int], stages: int) -> list[tuple[int, int]]:
    """Height and width of every stage, coarse to fine."""
    sizes = [size]
    for _ in range(stages - 1):
        height, width = sizes[0]
        require(
            min(height, width) >= 2,
            f"{stages} stages of model.groups halve {size[0]}x{size[1]} pixels to nothing",
        )
        sizes.insert(0, (-(-height // 2), -(-width // 2)))
    return [(1, 1), *sizes[:-1]]
