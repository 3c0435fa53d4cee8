"""Family "conditional": a VAE that is told the label (Sohn et al. 2015)."""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from training.errors import require
from training.likelihoods import GaussianStd, Likelihood, LikelihoodName, build_likelihood
from training.model import Layout, Terms
from training.models.checks import check_sizes
from training.models.gaussians import (
    gaussian_parameters,
    gaussian_rate,
    log_density,
    reparameterize,
)
from training.models.layers import Activation, dense_decoder, dense_encoder, output_layer


@dataclass(frozen=True)
class ConditionalConfig:
    """Settings as of family "mlp". `learned_prior` gives each label a Gaussian of its own."""

    latent_size: int = 50
    hidden_sizes: tuple[int, ...] = (200, 200)
    likelihood: LikelihoodName = "bernoulli"
    activation: Activation = "tanh"
    gaussian_std: GaussianStd = "learned"
    learned_prior: bool = True
    family: Literal["conditional"] = "conditional"

    def __post_init__(self) -> None:
        check_sizes(self.latent_size, self.hidden_sizes, self.gaussian_std)

    def build(self, layout: Layout) -> "ConditionalVae":
        """A model with fresh weights from torch's default generator.

        Raises TrainingError if the data have no labels.
        """
        require(layout.label_count is not None, "family conditional needs a data set with labels")
        assert layout.label_count is not None
        likelihood = build_likelihood(self.likelihood, self.gaussian_std, layout)
        inputs = math.prod(layout.observation_shape) + layout.label_count
        encoder = dense_encoder(inputs, self.hidden_sizes, 2 * self.latent_size, self.activation)
        outputs = likelihood.parameter_shape(layout.observation_shape)
        width = self.latent_size + layout.label_count
        decoder = dense_decoder(width, self.hidden_sizes, outputs, self.activation)
        return ConditionalVae(
            encoder, decoder, likelihood, layout, self.latent_size, self.learned_prior
        )


class ConditionalVae(nn.Module):
    """q(z given x, y), p(z given y) and p(x given z, y), the label y as one-hot numbers.

    The prior starts at N(0, 1) for every label. Every method needs `label` [N] int64.
    """

    family = "conditional"
    bounds_likelihood = True

    def __init__(
        self,
        encoder: nn.Sequential,
        decoder: nn.Sequential,
        likelihood: Likelihood,
        layout: Layout,
        latent_size: int,
        learned_prior: bool,
    ) -> None:
        super().__init__()
        assert layout.label_count is not None
        self.encoder = encoder
        self.decoder = decoder
        self.likelihood = likelihood
        self.likelihood_name: str = likelihood.name
        self.observation_shape = layout.observation_shape
        self.labels = layout.label_count
        self.standard_prior = not learned_prior
        self.noise_shape: tuple[int, ...] = (latent_size,)
        self.latent_shape: tuple[int, ...] = (latent_size,)
        zeros = torch.zeros(self.labels, 2 * latent_size)
        self.prior_parameters = nn.Parameter(zeros, requires_grad=learned_prior)

    @property
    def label_count(self) -> int | None:
        """How many labels there are."""
        return self.labels

    def posterior(self, observations: Tensor, label: Tensor | None) -> tuple[Tensor, Tensor]:
        """mean and log_variance of q(z given x, y), each [N, L]."""
        return gaussian_parameters(self.encoder(self._joined(observations.flatten(1), label)))

    def prior(self, label: Tensor | None) -> tuple[Tensor, Tensor]:
        """mean and log_variance of p(z given y), each [N, L]."""
        assert label is not None, "a conditional model needs labels"
        return gaussian_parameters(self.prior_parameters[label])

    def encode(
        self, observations: Tensor, noise: Tensor, label: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """latents, mean, log_variance, each [N, L]."""
        mean, log_variance = self.posterior(observations, label)
        return reparameterize(mean, log_variance, noise), mean, log_variance

    def sample_prior(self, noise: Tensor, label: Tensor | None = None) -> Tensor:
        """[N, L] standard normal -> latents [N, L] of p(z given y)."""
        return reparameterize(*self.prior(label), noise)

    def decode(self, latents: Tensor, label: Tensor | None = None) -> Tensor:
        """[N, L] -> observations [N, C, H, W] in [0, 1]: the mean of the likelihood."""
        return self.likelihood.mean(self.decoder(self._joined(latents, label)))

    def distortion(self, observations: Tensor, latents: Tensor, label: Tensor | None) -> Tensor:
        """-ln p(x given z, y): [N] nats."""
        parameters = self.decoder(self._joined(latents, label))
        return self.likelihood.distortion(parameters, observations)

    def elbo_terms(self, observations: Tensor, noise: Tensor, label: Tensor | None = None) -> Terms:
        """rate [N, L], distortion, log_weight and auxiliary [N] of ln p(x given y)."""
        posterior, prior = self.posterior(observations, label), self.prior(label)
        latents = reparameterize(*posterior, noise)
        distortion = self.distortion(observations, latents, label)
        weight = None
        if not self.training:
            ratio = log_density(latents, *prior) - log_density(latents, *posterior)
            weight = ratio.sum(1) - distortion
        rate = gaussian_rate(*posterior, *prior)
        return Terms(rate, distortion, weight)

    @torch.no_grad()
    def initialize_output(self, mean_observation: Tensor) -> None:
        """Start the decoder at the mean [C, H, W] of the training split, by its last bias."""
        self.likelihood.initialize(output_layer(self.decoder), mean_observation)

    def _one_hot(self, label: Tensor | None) -> Tensor:
        assert label is not None, "a conditional model needs labels"
        # F.one_hot looks at the labels, which no recording of a step and no CUDA graph can.
        classes = torch.arange(self.labels, device=label.device)
        return (label[:, None] == classes).to(self.prior_parameters.dtype)

    def _joined(self, values: Tensor, label: Tensor | None) -> Tensor:
        return torch.cat([values, self._one_hot(label)], dim=1)
