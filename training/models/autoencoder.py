"""Family "autoencoder": the plain autoencoder that the VAE is compared with."""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from training.likelihoods import GaussianStd, Likelihood, LikelihoodName, build_likelihood
from training.model import Layout, Terms
from training.models.checks import check_sizes
from training.models.gaussians import LOG_VARIANCE_RANGE
from training.models.layers import Activation, dense_decoder, dense_encoder, output_layer


@dataclass(frozen=True)
class AutoencoderConfig:
    """Settings as of family "mlp"."""

    latent_size: int = 8
    hidden_sizes: tuple[int, ...] = (200, 200)
    likelihood: LikelihoodName = "bernoulli"
    activation: Activation = "tanh"
    gaussian_std: GaussianStd = "learned"
    family: Literal["autoencoder"] = "autoencoder"

    def __post_init__(self) -> None:
        check_sizes(self.latent_size, self.hidden_sizes, self.gaussian_std)

    def build(self, layout: Layout) -> "Autoencoder":
        """A model with fresh weights from torch's default generator."""
        likelihood = build_likelihood(self.likelihood, self.gaussian_std, layout)
        dims = math.prod(layout.observation_shape)
        encoder = dense_encoder(dims, self.hidden_sizes, self.latent_size, self.activation)
        outputs = likelihood.parameter_shape(layout.observation_shape)
        decoder = dense_decoder(self.latent_size, self.hidden_sizes, outputs, self.activation)
        return Autoencoder(encoder, decoder, likelihood, layout, self.latent_size)


class Autoencoder(nn.Module):
    """x -> z -> x without a posterior: the rate is 0, and its "ELBO" bounds nothing.

    Nothing makes its latents resemble the prior, so what it decodes from noise is poor; that is
    the comparison. log_variance is the smallest there is.
    """

    family = "autoencoder"
    label_count: None = None
    standard_prior = True
    bounds_likelihood = False

    def __init__(
        self,
        encoder: nn.Sequential,
        decoder: nn.Sequential,
        likelihood: Likelihood,
        layout: Layout,
        latent_size: int,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder
        self.likelihood = likelihood
        self.likelihood_name: str = likelihood.name
        self.observation_shape = layout.observation_shape
        self.noise_shape: tuple[int, ...] = (latent_size,)
        self.latent_shape: tuple[int, ...] = (latent_size,)

    def encode(
        self, observations: Tensor, noise: Tensor, label: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """latents, mean (the same) and log_variance, each [N, L]; the noise does not matter."""
        mean = self.encoder(observations).float()
        latents = mean + 0 * noise  # a graph keeps its input
        return latents, mean, torch.full_like(mean, LOG_VARIANCE_RANGE[0])

    def sample_prior(self, noise: Tensor, label: Tensor | None = None) -> Tensor:
        """[N, L] standard normal: the latents are the noise."""
        return noise

    def decode(self, latents: Tensor, label: Tensor | None = None) -> Tensor:
        """[N, L] -> observations [N, C, H, W] in [0, 1]."""
        return self.likelihood.mean(self.decoder(latents))

    def elbo_terms(self, observations: Tensor, noise: Tensor, label: Tensor | None = None) -> Terms:
        """rate 0 [N, L], distortion [N]; log_weight is -distortion, which weighs nothing."""
        latents, _, _ = self.encode(observations, noise)
        distortion = self.likelihood.distortion(self.decoder(latents), observations)
        weight = None if self.training else -distortion
        return Terms(torch.zeros_like(latents), distortion, weight)

    @torch.no_grad()
    def initialize_output(self, mean_observation: Tensor) -> None:
        """Start the decoder at the mean [C, H, W] of the training split, by its last bias."""
        self.likelihood.initialize(output_layer(self.decoder), mean_observation)
