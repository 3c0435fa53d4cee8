"""Family "vq": the VQ-VAE, whose latents are a grid of codes with an autoregressive prior."""

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

from training.errors import require
from training.likelihoods import GaussianStd, Likelihood, LikelihoodName, build_likelihood
from training.model import Layout, Terms
from training.models import convolutions
from training.models.checks import check_sizes
from training.models.layers import output_layer
from training.models.pixelcnn import GatedPixelCnn, gumbel
from training.models.quantizer import Quantizer


@dataclass(frozen=True)
class VqConfig:
    """`channels` are stages that halve height and width each; the codes lie on what is left.

    `codes` vectors of `code_size` numbers, which move by `decay`; `commitment` weighs the squared
    distance of the encoder's output to its code, the mean of a position times the number of
    pixels. The prior is a gated PixelCNN of `prior_layers` layers of `prior_channels`.
    """

    codes: int = 128
    code_size: int = 32
    channels: tuple[int, ...] = (32, 64)
    blocks: int = 1
    decay: float = 0.99
    commitment: float = 0.25
    prior_channels: int = 32
    prior_layers: int = 4
    likelihood: LikelihoodName = "gaussian"
    gaussian_std: GaussianStd = 0.1
    family: Literal["vq"] = "vq"

    def __post_init__(self) -> None:
        check_sizes(self.code_size, (), self.gaussian_std, self.channels)
        require(len(self.channels) >= 1, "model.channels must name a stage")
        require(self.codes >= 2, "model.codes must be at least 2")
        require(0 <= self.decay < 1, "model.decay must be at least 0 and below 1")
        require(self.commitment >= 0, "model.commitment must not be negative")
        for name in ("prior_channels", "prior_layers"):
            require(getattr(self, name) >= 1, f"model.{name} must be at least 1")
        require(self.blocks >= 0, "model.blocks must not be negative")

    def build(self, layout: Layout) -> "Vq":
        """A model with fresh weights from torch's default generator.

        Raises TrainingError if the stages cannot halve the observation often enough.
        """
        _, height, width = layout.observation_shape
        factor = 2 ** len(self.channels)
        require(
            height % factor == width % factor == 0,
            f"{len(self.channels)} model.channels halve {height}x{width} pixels to no integer",
        )
        likelihood = build_likelihood(self.likelihood, self.gaussian_std, layout)
        return Vq(self, likelihood, layout, (height // factor, width // factor))


class Vq(nn.Module):
    """x -> the nearest codes -> x. The posterior is certain of its codes.

    The prior has no influence on the codes: its loss reaches its own weights alone, so that one fit
    trains both. The rate is then -ln p(codes), and rate + distortion an upper bound of -ln p(x).
    """

    family = "vq"
    label_count: None = None
    standard_prior = False
    bounds_likelihood = True

    def __init__(
        self, config: VqConfig, likelihood: Likelihood, layout: Layout, grid: tuple[int, int]
    ) -> None:
        super().__init__()
        shape, channels = layout.observation_shape, config.channels
        inner, outputs = channels[-1], likelihood.parameter_shape(shape)[0]
        down: list[nn.Module] = []
        for before, after in pairwise([shape[0], *channels]):
            down += [convolutions.Conv2d(before, after, 4, stride=2, padding=1), nn.SiLU()]
        up: list[nn.Module] = []
        for before, after in pairwise([*reversed(channels), outputs]):
            up += [nn.SiLU(), convolutions.ConvTranspose2d(before, after, 4, stride=2, padding=1)]
        self.encoder = nn.Sequential(
            *down,
            *(_Residual(inner) for _ in range(config.blocks)),
            convolutions.Conv2d(inner, config.code_size, 1),
        )
        self.decoder = nn.Sequential(
            convolutions.Conv2d(config.code_size, inner, 3, padding=1),
            *(_Residual(inner) for _ in range(config.blocks)),
            *up,
            convolutions.ChannelsFirst(),
        )
        self.quantizer = Quantizer(config.codes, config.code_size, config.decay)
        self.prior = GatedPixelCnn(
            config.codes, True, *grid, config.prior_channels, config.prior_layers
        )
        self.likelihood = likelihood
        self.likelihood_name: str = likelihood.name
        self.observation_shape = shape
        self.noise_shape: tuple[int, ...] = (*grid, config.codes)
        self.training_noise_shape = (*grid, 1)
        self.latent_shape: tuple[int, ...] = grid
        self.weight = config.commitment * shape[0] * shape[1] * shape[2]

    @property
    def code_count(self) -> int:
        """How many codes there are."""
        return self.quantizer.size

    def codes(self, observations: Tensor, label: Tensor | None = None) -> Tensor:
        """The nearest codes [N, h, w] int64."""
        return self.quantizer.nearest(self.encoder(observations).permute(0, 2, 3, 1))

    def encode(
        self, observations: Tensor, noise: Tensor, label: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """latents: the codes [N, h, w] int64, whatever the noise.

        mean and log_variance [N, D, h, w]: the encoder's output, and zeros that mean nothing.
        """
        mean = self.encoder(observations).float()
        nothing = (0 * noise[..., 0]).long()  # a graph keeps its input
        codes = self.quantizer.nearest(mean.permute(0, 2, 3, 1)) + nothing
        return codes, mean, torch.zeros_like(mean)

    def sample_prior(self, noise: Tensor, label: Tensor | None = None) -> Tensor:
        """[N, h, w, K] standard normal -> codes [N, h, w] int64 drawn from the PixelCNN."""
        return self.prior.sample(gumbel(noise))

    def decode(self, latents: Tensor, label: Tensor | None = None) -> Tensor:
        """Codes [N, h, w] int64 -> observations [N, C, H, W] in [0, 1]."""
        return self.likelihood.mean(self.decoder(self.quantizer.lookup(latents)))

    def elbo_terms(self, observations: Tensor, noise: Tensor, label: Tensor | None = None) -> Terms:
        """rate [N, 1]: -ln p(codes); auxiliary [N]: the commitment.

        In train mode the codebook moves; the noise decides which vectors revive dead codes, for
        which a number for each position is enough, [N, *training_noise_shape].
        """
        codes, values, distance = self.quantizer(self.encoder(observations), noise[..., 0])
        distortion = self.likelihood.distortion(self.decoder(values), observations)
        # Innermost, where sums are fast; torch traces no cross-entropy of a flattened batch.
        shares = self.prior(codes).float().permute(0, 2, 3, 1).log_softmax(-1)
        rate = -shares.gather(-1, codes.unsqueeze(-1)).flatten(1).sum(1, keepdim=True)
        weight = None if self.training else -rate[:, 0] - distortion
        return Terms(rate, distortion, weight, self.weight * distance)

    @torch.no_grad()
    def initialize_output(self, mean_observation: Tensor) -> None:
        """Start the decoder at the mean [C, H, W] of the training split, by its last bias."""
        self.likelihood.initialize(output_layer(self.decoder), mean_observation)


class _Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.inner = nn.Sequential(
            nn.SiLU(),
            convolutions.Conv2d(channels, channels, 3, padding=1),
            nn.SiLU(),
            convolutions.Conv2d(channels, channels, 1),
        )

    def forward(self, inputs: Tensor) -> Tensor:
        """[N, channels, h, w] -> the same shape."""
        return inputs + self.inner(inputs)  # type: ignore[no-any-return]
