"""Family "mlp": a VAE of dense layers."""

import math
from dataclasses import dataclass
from typing import Literal

from training.likelihoods import GaussianStd, LikelihoodName, build_likelihood
from training.model import Layout
from training.models.checks import check_sizes
from training.models.layers import Activation, dense_decoder, dense_encoder
from training.models.vae import Vae


@dataclass(frozen=True)
class MlpConfig:
    """`hidden_sizes` are the layers from observation to latents; the decoder mirrors them.

    `gaussian_std` is for likelihood "gaussian", see `training.likelihoods.Gaussian`.
    """

    latent_size: int = 8
    hidden_sizes: tuple[int, ...] = (200, 200)
    likelihood: LikelihoodName = "bernoulli"
    activation: Activation = "tanh"
    gaussian_std: GaussianStd = "learned"
    family: Literal["mlp"] = "mlp"

    def __post_init__(self) -> None:
        check_sizes(self.latent_size, self.hidden_sizes, self.gaussian_std)

    def build(self, layout: Layout) -> Vae:
        """A model with fresh weights from torch's default generator."""
        likelihood = build_likelihood(self.likelihood, self.gaussian_std, layout)
        dims = math.prod(layout.observation_shape)
        encoder = dense_encoder(dims, self.hidden_sizes, 2 * self.latent_size, self.activation)
        outputs = likelihood.parameter_shape(layout.observation_shape)
        decoder = dense_decoder(self.latent_size, self.hidden_sizes, outputs, self.activation)
        return Vae(self.family, encoder, decoder, likelihood, layout, self.latent_size)
