"""Family "ladder": a hierarchy of latent groups, the coarsest first (VDVAE, Child 2021)."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

from training.errors import require
from training.likelihoods import GaussianStd, Likelihood, LikelihoodName, build_likelihood
from training.model import LatentGroup, Layout, Terms
from training.models.blocks import Draw, Enlarge, Residual, Side, TopDownBlock
from training.models.checks import check_sizes
from training.models.gaussians import gaussian_rate, log_density, reparameterize

_SAME = nn.Identity()


@dataclass(frozen=True)
class LadderConfig:
    """A level for each entry of `groups`, which says how many latent groups it has.

    The first level is 1x1; the last has half the observation's sides, rounded up, and those
    between halve again: 1x1, 7x7, 14x14 for 28x28 pixels and three entries. A group has
    `latent_channels` of its level in each position. `blocks` are the encoder's residual blocks
    in each level, `channels` the width everywhere and `bottleneck` its share inside a block.
    """

    channels: int = 32
    groups: tuple[int, ...] = (1, 1, 1)
    latent_channels: tuple[int, ...] = (16, 4, 1)
    blocks: int = 1
    bottleneck: float = 0.5
    likelihood: LikelihoodName = "bernoulli"
    gaussian_std: GaussianStd = "learned"
    family: Literal["ladder"] = "ladder"

    def __post_init__(self) -> None:
        check_sizes(1, self.latent_channels, self.gaussian_std, (self.channels,))
        require(self.blocks >= 0, "model.blocks must not be negative")
        require(0 < self.bottleneck <= 1, "model.bottleneck must be above 0 and at most 1")
        require(len(self.groups) >= 2, "model.groups needs two levels or more")
        require(min(self.groups) >= 1, "model.groups must be at least 1 each")
        same = len(self.groups) == len(self.latent_channels)
        require(same, "model.latent_channels must be as many as model.groups")

    def build(self, layout: Layout) -> "Ladder":
        """A model with fresh weights from torch's default generator.

        Raises TrainingError if the observation is too small for so many levels.
        """
        return Ladder(self, build_likelihood(self.likelihood, self.gaussian_std, layout), layout)


class Ladder(nn.Module):
    """p(z_1) p(z_2 given z_1) ... p(x given z_1, ..., z_G), with a q in the same order.

    Latents and noise are flat; `groups` says which part is which. The encoder goes from the
    observation to 1x1; the way back is shared by posterior and prior.
    """

    family = "ladder"
    label_count: None = None
    importance_samples = 20
    importance_items = 200
    standard_prior = False
    bounds_likelihood = True

    def __init__(self, config: LadderConfig, likelihood: Likelihood, layout: Layout) -> None:
        super().__init__()
        self.likelihood = likelihood
        self.likelihood_name: str = likelihood.name
        self.observation_shape = layout.observation_shape
        outputs = likelihood.parameter_shape(layout.observation_shape)
        sides = _sides((outputs[1], outputs[2]), len(config.groups))
        width, share, depth = config.channels, config.bottleneck, sum(config.groups)
        self.encoder = _Encoder(config, layout.observation_shape[0], sides)
        self.start = nn.Parameter(torch.zeros(1, width, 1, 1))
        self.enlarge = nn.ModuleList(
            Enlarge(width, before, side) for before, side in pairwise(sides)
        )
        self.levels = nn.ModuleList(
            nn.ModuleList(TopDownBlock(width, latents, share, side, depth) for _ in range(count))
            for side, count, latents in zip(
                sides, config.groups, config.latent_channels, strict=True
            )
        )
        self.output = nn.ConvTranspose2d(width, outputs[0], 4, stride=2, padding=1)
        self.groups = _groups(config, sides)
        size = sum(group.size for group in self.groups)
        self.noise_shape: tuple[int, ...] = (size,)
        self.latent_shape: tuple[int, ...] = (size,)

    def encode(
        self, observations: Tensor, noise: Tensor, label: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """latents, mean and log_variance of the posterior that drew them, each [N, L].

        A group's posterior is the one given the draw of the groups before it.
        """
        draws, _ = self._draw(observations, noise)
        latents, mean, log_variance, _, _ = (_flat(parts) for parts in zip(*draws, strict=True))
        return latents, mean, log_variance

    def sample_prior(self, noise: Tensor, label: Tensor | None = None) -> Tensor:
        """[N, L] standard normal -> latents [N, L], each group given those before it."""
        latents: list[Tensor] = []
        features = self._start(noise)
        for block, enlarge, group, _ in self._steps():
            mean, log_variance, features = block.prior(enlarge(features))
            latents.append(reparameterize(mean, log_variance, group.of(noise)))
            features = block.merge(features, latents[-1])
        return _flat(latents)

    def decode(self, latents: Tensor, label: Tensor | None = None) -> Tensor:
        """[N, L] -> observations [N, C, H, W] in [0, 1]: the mean of the likelihood."""
        features = self._start(latents)
        for block, enlarge, group, _ in self._steps():
            _, _, features = block.prior(enlarge(features))
            features = block.merge(features, group.of(latents))
        return self.likelihood.mean(self._likelihood_parameters(features))

    def elbo_terms(self, observations: Tensor, noise: Tensor, label: Tensor | None = None) -> Terms:
        """rate [N, G] by group, given the draw of those before it; the others [N]."""
        draws, features = self._draw(observations, noise)
        rates = [
            gaussian_rate(mean, log_variance, *prior).flatten(1).sum(1)
            for _, mean, log_variance, *prior in draws
        ]
        distortion = self.likelihood.distortion(self._likelihood_parameters(features), observations)
        weight = None if self.training else _log_ratio(draws) - distortion
        return Terms(torch.stack(rates, 1), distortion, weight)

    @torch.no_grad()
    def initialize_output(self, mean_observation: Tensor) -> None:
        """Start the decoder at the mean [C, H, W] of the training split, by its last bias."""
        self.likelihood.initialize(self.output, mean_observation)

    def _draw(self, observations: Tensor, noise: Tensor) -> tuple[list[Draw], Tensor]:
        evidence = self.encoder(observations)
        draws: list[Draw] = []
        features = self._start(noise)
        for block, enlarge, group, level in self._steps():
            draw, features = block.draw(enlarge(features), evidence[level], group.of(noise))
            draws.append(draw)
        return draws, features

    def _start(self, like: Tensor) -> Tensor:
        """The first features [N, channels, 1, 1], the same for all."""
        return self.start + torch.zeros_like(like[:, :1, None, None])

    def _steps(self) -> Iterator[tuple[TopDownBlock, nn.Module, LatentGroup, int]]:
        """The blocks from 1x1 on: each with what comes before it, its group and its level."""
        groups = iter(self.groups)
        for level, blocks in enumerate(self.levels):
            assert isinstance(blocks, nn.ModuleList)
            for number, block in enumerate(blocks):
                assert isinstance(block, TopDownBlock)
                grows = level > 0 and number == 0
                yield block, self.enlarge[level - 1] if grows else _SAME, next(groups), level

    def _likelihood_parameters(self, features: Tensor) -> Tensor:
        """[N, channels, h, w] of the last level -> the likelihood's parameters."""
        _, height, width = self.observation_shape
        # Half of an odd side is rounded up, and its double is one too many.
        grown: Tensor = self.output(nn.functional.gelu(features))
        return grown[:, :, :height, :width]


class _Encoder(nn.Module):
    """[N, C, H, W] -> features of each level, the coarsest first."""

    def __init__(self, config: LadderConfig, inputs: int, sides: list[Side]) -> None:
        super().__init__()
        width = config.channels
        depth = max(1, config.blocks * len(sides))
        down: list[nn.Module] = [nn.Conv2d(width, width, sides[1])]
        down += [nn.Conv2d(width, width, 3, stride=2, padding=1) for _ in sides[2:]]
        down.append(nn.Conv2d(inputs, width, 5, stride=2, padding=2))
        self.levels = nn.ModuleList(
            nn.Sequential(
                step,
                *(Residual(width, config.bottleneck, side, depth) for _ in range(config.blocks)),
            )
            for step, side in zip(down, sides, strict=True)
        )

    def forward(self, observations: Tensor) -> list[Tensor]:
        """[N, channels, h, w] of each level."""
        features, found = observations, []
        for level in reversed(self.levels):
            features = level(features)
            found.append(features)
        return found[::-1]


def _sides(observation: Side, levels: int) -> list[Side]:
    """(height, width) of each level, the coarsest first."""
    sides: list[Side] = []
    height, width = observation
    for _ in range(levels - 1):
        height, width = math.ceil(height / 2), math.ceil(width / 2)
        sides.insert(0, (height, width))
    require(max(sides[0]) > 1, f"{levels} model.groups halve the observation to nothing")
    return [(1, 1), *sides]


def _groups(config: LadderConfig, sides: list[Side]) -> tuple[LatentGroup, ...]:
    found: list[LatentGroup] = []
    offset = 0
    for side, count, latents in zip(sides, config.groups, config.latent_channels, strict=True):
        for number in range(count):
            name = f"{side[0]}x{side[1]}_{number}"
            found.append(LatentGroup(name, (latents, *side), offset))
            offset += found[-1].size
    return tuple(found)


def _log_ratio(draws: Sequence[Draw]) -> Tensor:
    """[N]: ln p(z) - ln q(z given x) of the draws of all groups."""
    ratios = []
    for latents, mean, log_variance, *prior in draws:
        ratio = log_density(latents, *prior) - log_density(latents, mean, log_variance)
        ratios.append(ratio.flatten(1).sum(1))
    return torch.stack(ratios).sum(0)


def _flat(parts: Sequence[Tensor]) -> Tensor:
    return torch.cat([part.flatten(1) for part in parts], 1)
