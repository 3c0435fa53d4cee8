"""Variational autoencoders with a Gaussian posterior and a standard normal prior."""

import torch
from torch import Tensor, nn

from training.likelihoods import Likelihood
from training.model import Layout, Terms
from training.models.gaussians import (
    gaussian_parameters,
    reparameterize,
    standard_log_ratio,
    standard_rate,
)
from training.models.layers import output_layer


class Vae(nn.Module):
    """q(z given x) and p(x given z) (Kingma & Welling 2014).

    `encoder` maps observations [N, C, H, W] to [N, 2 L]; `decoder` maps latents [N, L] to the
    parameters [N, C * parameters_per_dim, H, W] of the likelihood.
    """

    label_count: None = None
    standard_prior = True
    bounds_likelihood = True

    def __init__(
        self,
        family: str,
        encoder: nn.Sequential,
        decoder: nn.Sequential,
        likelihood: Likelihood,
        layout: Layout,
        latent_size: int,
    ) -> None:
        super().__init__()
        self.family = family
        self.encoder = encoder
        self.decoder = decoder
        self.likelihood = likelihood
        self.likelihood_name: str = likelihood.name
        self.observation_shape = layout.observation_shape
        self.noise_shape: tuple[int, ...] = (latent_size,)
        self.latent_shape: tuple[int, ...] = (latent_size,)

    def posterior(self, observations: Tensor, label: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """[N, C, H, W] float32 in [0, 1] -> mean and log_variance of the posterior, each [N, L].

        log_variance lies in [-30, 20].
        """
        return gaussian_parameters(self.encoder(observations))

    def prior(self, label: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """mean and log_variance of N(0, 1): two zeros [1, L] on the model's device."""
        zeros = next(self.parameters()).new_zeros(1, *self.latent_shape)
        return zeros, zeros

    def encode(
        self, observations: Tensor, noise: Tensor, label: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """latents, mean, log_variance, each [N, L]; see `training.model.Model`."""
        mean, log_variance = self.posterior(observations)
        return reparameterize(mean, log_variance, noise), mean, log_variance

    def sample_prior(self, noise: Tensor, label: Tensor | None = None) -> Tensor:
        """[N, L] standard normal: the latents are the noise."""
        return noise

    def decode(self, latents: Tensor, label: Tensor | None = None) -> Tensor:
        """[N, L] -> observations [N, C, H, W] in [0, 1]: the mean of the likelihood."""
        return self.likelihood.mean(self.decoder(latents))

    def distortion(
        self, observations: Tensor, latents: Tensor, label: Tensor | None = None
    ) -> Tensor:
        """-ln p(x given z) for [N, C, H, W] and [N, L]: [N] nats."""
        return self.likelihood.distortion(self.decoder(latents), observations)

    def elbo_terms(self, observations: Tensor, noise: Tensor, label: Tensor | None = None) -> Terms:
        """rate [N, L], distortion, log_weight and auxiliary [N] for one draw."""
        latents, mean, log_variance = self.encode(observations, noise)
        parameters = self.decoder(latents)
        distortion = self.likelihood.distortion(parameters, observations)
        weight = None
        if not self.training:
            weight = standard_log_ratio(latents, log_variance, noise) - distortion
        rate = standard_rate(mean, log_variance)
        return Terms(rate, distortion, weight, self.auxiliary(parameters, observations))

    def auxiliary(self, parameters: Tensor, observations: Tensor) -> Tensor | None:
        """[N]: what the loss adds to the bound for the likelihood's parameters; here nothing."""
        return None

    @torch.no_grad()
    def initialize_output(self, mean_observation: Tensor) -> None:
        """Start the decoder at the mean [C, H, W] of the training split, by its last bias."""
        self.likelihood.initialize(output_layer(self.decoder), mean_observation)
