"""Today's `Vae` as a `training.model.Model`."""

import torch
from torch import Tensor

from training.latent_statistics import rate_by_unit
from training.model import Terms
from training.models import Vae
from training.objective import reparameterize


class VaeModel:
    """A `Vae` with a normal posterior, a standard normal prior and no labels."""

    def __init__(self, vae: Vae) -> None:
        self.vae = vae
        self.family = "vae"
        self.label_count: int | None = None
        self.observation_shape = vae.observation_shape
        self.noise_shape: tuple[int, ...] = (vae.latent_size,)
        self.latent_shape: tuple[int, ...] = self.noise_shape
        self.likelihood_name = vae.likelihood_name
        self.training = vae.training
        self.train, self.eval, self.parameters = vae.train, vae.eval, vae.parameters
        self.state_dict, self.load_state_dict = vae.state_dict, vae.load_state_dict

    def posterior(self, observations: Tensor, label: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """mean and log_variance, each [N, L]."""
        return self.vae.encode(observations)

    def prior(self, label: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """mean and log_variance of N(0, 1): two zeros [1, L]."""
        zeros = torch.zeros(1, *self.latent_shape)
        return zeros, zeros

    def distortion(
        self, observations: Tensor, latents: Tensor, label: Tensor | None = None
    ) -> Tensor:
        """[N] nats."""
        return self.vae.distortion(observations, latents)

    def encode(
        self, observations: Tensor, noise: Tensor, label: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """[N, C, H, W] and [N, L] -> latents, mean and log_variance, each [N, L]."""
        mean, log_variance = self.vae.encode(observations)
        return reparameterize(mean, log_variance, noise), mean, log_variance

    def sample_prior(self, noise: Tensor, label: Tensor | None = None) -> Tensor:
        """The noise is the latents."""
        return noise

    def decode(self, latents: Tensor, label: Tensor | None = None) -> Tensor:
        """[N, L] -> [N, C, H, W] in [0, 1]."""
        return self.vae.decode(latents)

    def elbo_terms(self, observations: Tensor, noise: Tensor, label: Tensor | None = None) -> Terms:
        """Terms for [N, C, H, W] and [N, L]."""
        latents, mean, log_variance = self.encode(observations, noise)
        distortion = self.vae.distortion(observations, latents)
        ratio = 0.5 * (noise.square() + log_variance - latents.square()).sum(1)
        return Terms(
            rate_by_unit(mean, log_variance),
            distortion,
            ratio - distortion,
            torch.zeros_like(distortion),
        )
