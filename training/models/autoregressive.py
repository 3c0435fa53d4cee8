"""Family "autoregressive": a VAE whose decoder is a PixelCNN that also knows the latents."""

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

import torch
from torch import Tensor, nn

from training.errors import require
from training.likelihoods import Bernoulli
from training.model import Layout, Terms
from training.models.checks import check_sizes
from training.models.gaussians import (
    gaussian_parameters,
    reparameterize,
    standard_log_ratio,
    standard_rate,
)
from training.models.layers import Activation, dense_decoder, dense_encoder
from training.models.pixelcnn import GatedPixelCnn

DECODING_PASSES = 4


@dataclass(frozen=True)
class AutoregressiveConfig:
    """Binary pixels, each given the latents and those before it.

    `layers` and `kernel` (odd) of the PixelCNN decide how far a pixel sees, see `GatedPixelCnn`:
    far enough, and the decoder needs no latents; with no layers and kernel 1 it sees its left and
    its upper neighbour alone. `channels` are the PixelCNN's and `map_channels` those of the map
    that dense layers of `hidden_sizes` make of the latents; 0 tells every pixel the latents alone.
    In a fit each pixel that the decoder is given is hidden with probability `input_dropout`, so
    that it needs the latents more (word dropout of Bowman et al. 2016); the data's mean stands
    for a hidden one.
    """

    latent_size: int = 16
    hidden_sizes: tuple[int, ...] = (200,)
    channels: int = 16
    layers: int = 4
    kernel: int = 5
    map_channels: int = 2
    input_dropout: float = 0.0
    activation: Activation = "tanh"
    family: Literal["autoregressive"] = "autoregressive"

    def __post_init__(self) -> None:
        check_sizes(self.latent_size, self.hidden_sizes, channels=(self.channels,))
        require(self.layers >= 0, "model.layers must not be negative")
        require(self.kernel >= 1 and self.kernel % 2 == 1, "model.kernel must be odd")
        require(self.map_channels >= 0, "model.map_channels must not be negative")
        holds = 0 <= self.input_dropout < 1
        require(holds, "model.input_dropout must be at least 0 and below 1")

    def build(self, layout: Layout) -> "AutoregressiveVae":
        """A model with fresh weights from torch's default generator.

        Raises TrainingError if the data are no pixels of one channel.
        """
        pixels = layout.maximum is not None and layout.observation_shape[0] == 1
        require(pixels, "family autoregressive needs pixels of one channel")
        return AutoregressiveVae(self, layout)


class AutoregressiveVae(nn.Module):
    """p(z) and p(x given z) as a product over pixels in row-major order (Chen et al. 2017).

    The likelihood is exact, as a pixel's factor knows the true pixels before it. `decode` has no
    such pixels, and their mean given the latents alone no one can compute; it approximates it in
    a few passes, see there. `draw` gives true draws, pixel by pixel.
    """

    family = "autoregressive"
    likelihood_name = Bernoulli.name
    label_count: None = None
    importance_samples = 20
    importance_items = 200
    standard_prior = True
    bounds_likelihood = True

    def __init__(self, config: AutoregressiveConfig, layout: Layout) -> None:
        super().__init__()
        _, height, width = layout.observation_shape
        latents, hidden, kind = config.latent_size, config.hidden_sizes, config.activation
        dims = height * width
        self.encoder = dense_encoder(dims, hidden, 2 * latents, kind)
        shape = (config.map_channels, height, width)
        self.decoder = dense_decoder(latents, hidden, shape, kind) if shape[0] else nn.Identity()
        self.pixelcnn = GatedPixelCnn(
            categories=1,
            embedding=False,
            height=height,
            width=width,
            channels=config.channels,
            layers=config.layers,
            condition_size=config.map_channels or latents,
            kernel=config.kernel,
        )
        self.offset = nn.Parameter(torch.zeros(layout.observation_shape))
        self.likelihood = Bernoulli()
        self.observation_shape = layout.observation_shape
        self.noise_shape: tuple[int, ...] = (latents,)
        self.latent_shape: tuple[int, ...] = (latents,)
        # In a fit noise of the pixels follows that of the latents; those below a quantile hide.
        dropout = config.input_dropout
        self.training_noise_shape: tuple[int, ...] = (latents + dims if dropout else latents,)
        self.quantile = NormalDist().inv_cdf(dropout) if dropout else -math.inf

    def posterior(self, observations: Tensor, label: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """mean and log_variance of q(z given x), each [N, L]."""
        return gaussian_parameters(self.encoder(observations))

    def prior(self, label: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """mean and log_variance of N(0, 1): two zeros [1, L] on the model's device."""
        zeros = self.offset.new_zeros(1, *self.latent_shape)
        return zeros, zeros

    def encode(
        self, observations: Tensor, noise: Tensor, label: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """latents, mean, log_variance, each [N, L]."""
        mean, log_variance = self.posterior(observations)
        return reparameterize(mean, log_variance, noise), mean, log_variance

    def sample_prior(self, noise: Tensor, label: Tensor | None = None) -> Tensor:
        """[N, L] standard normal: the latents are the noise."""
        return noise

    def decode(self, latents: Tensor, label: Tensor | None = None) -> Tensor:
        """[N, L] -> [N, 1, H, W] in [0, 1]: expected pixels, to a mean-field approximation.

        The first pass is given the mean of the data, each further one the last one's answer.
        """
        condition = self._condition(latents)
        expected = torch.sigmoid(self.offset).expand(latents.shape[0], -1, -1, -1)
        for _ in range(DECODING_PASSES):
            expected = torch.sigmoid(self._logits(expected, condition))
        return expected

    def draw(self, latents: Tensor, noise: Tensor) -> Tensor:
        """Pixels [N, 1, H, W], 0 or 1: on where logit + noise [N, H, W] is positive.

        With logistic noise, see `training.models.pixelcnn.logistic`, a draw of p(x given z).
        """
        scores = (noise[:, None] + self.offset).permute(0, 2, 3, 1)
        return self.pixelcnn.sample(scores, self._condition(latents))[:, None].float()

    def distortion(
        self, observations: Tensor, latents: Tensor, label: Tensor | None = None
    ) -> Tensor:
        """-ln p(x given z) for [N, 1, H, W] and [N, L]: [N] nats."""
        logits = self._logits(observations, self._condition(latents))
        return self.likelihood.distortion(logits, observations)

    def elbo_terms(self, observations: Tensor, noise: Tensor, label: Tensor | None = None) -> Terms:
        """rate [N, L], distortion, log_weight and auxiliary [N] for one draw.

        With noise [N, *training_noise_shape] the decoder is not given all pixels.
        """
        size = self.latent_shape[0]
        of_latents, of_pixels = noise[:, :size], noise[:, size:]
        latents, mean, log_variance = self.encode(observations, of_latents)
        given = self._hidden(observations, of_pixels) if of_pixels.shape[1] else observations
        logits = self._logits(given, self._condition(latents))
        distortion = self.likelihood.distortion(logits, observations)
        weight = None
        if not self.training:
            weight = standard_log_ratio(latents, log_variance, of_latents) - distortion
        rate = standard_rate(mean, log_variance)
        return Terms(rate, distortion, weight)

    @torch.no_grad()
    def initialize_output(self, mean_observation: Tensor) -> None:
        """Start every pixel's logit at that of the mean [1, H, W] of the training split."""
        self.offset.copy_(torch.logit(mean_observation.clamp(0.01, 0.99)))

    def _condition(self, latents: Tensor) -> Tensor:
        condition: Tensor = self.decoder(latents)
        return condition

    def _hidden(self, pixels: Tensor, noise: Tensor) -> Tensor:
        hidden = noise.view_as(pixels) < self.quantile
        return torch.where(hidden, torch.sigmoid(self.offset.detach()), pixels)

    def _logits(self, pixels: Tensor, condition: Tensor) -> Tensor:
        logits: Tensor = self.pixelcnn(pixels, condition)
        return logits.float() + self.offset
