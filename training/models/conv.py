"""Family "conv": a VAE of convolutions and dense layers."""

from dataclasses import dataclass
from typing import Literal

from training.likelihoods import GaussianStd, LikelihoodName, build_likelihood
from training.model import Layout
from training.models.checks import check_sizes
from training.models.layers import Activation, conv_decoder, conv_encoder, stages_for
from training.models.vae import Vae


@dataclass(frozen=True)
class ConvConfig:
    """`channels` are stages that halve height and width each; none: as many as the data allow.

    `hidden_sizes` are dense layers between the last stage and the latents; the decoder mirrors
    all. `gaussian_std` is for likelihood "gaussian", see `training.likelihoods.Gaussian`.
    """

    latent_size: int = 8
    hidden_sizes: tuple[int, ...] = (200,)
    channels: tuple[int, ...] = ()
    likelihood: LikelihoodName = "bernoulli"
    activation: Activation = "silu"
    gaussian_std: GaussianStd = "learned"
    family: Literal["conv"] = "conv"

    def __post_init__(self) -> None:
        check_sizes(self.latent_size, self.hidden_sizes, self.gaussian_std, self.channels)

    def build(self, layout: Layout) -> Vae:
        """A model with fresh weights from torch's default generator.

        Raises TrainingError if the stages cannot halve the observation often enough.
        """
        shape, hidden, activation = layout.observation_shape, self.hidden_sizes, self.activation
        channels = self.channels or stages_for(*shape[1:])
        likelihood = build_likelihood(self.likelihood, self.gaussian_std, layout)
        encoder = conv_encoder(shape, channels, hidden, 2 * self.latent_size, activation)
        outputs = likelihood.parameter_shape(shape)
        decoder = conv_decoder(self.latent_size, hidden, channels, outputs, activation)
        return Vae(self.family, encoder, decoder, likelihood, layout, self.latent_size)
