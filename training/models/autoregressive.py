"""Family "autoregressive": a PixelCNN as the decoder, which shows posterior collapse.

Such a decoder models the data without its latents, and the rate is a cost: fitted plainly, the
posterior becomes the prior (Bowman et al. 2016, Chen et al. 2017). Free bits, annealing, or a
decoder that sees little (`layers`, `kernel`) keep the latents in use.
"""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.errors import require
from training.model import Layout, Terms
from training.models.checks import check_sizes
from training.models.gaussians import gaussian_parameters, reparameterize, standard_rate
from training.models.layers import conv_encoder, stages_for
from training.models.pixelcnn import GatedPixelCnn


@dataclass(frozen=True)
class AutoregressiveConfig:
    """`width`, `layers` and `kernel` are the PixelCNN's: it sees layers * (kernel - 1) / 2 pixels
    far. `channels` and `hidden_sizes` are the encoder's, as of family "conv"."""

    latent_size: int = 16
    hidden_sizes: tuple[int, ...] = (128,)
    channels: tuple[int, ...] = (16, 32)
    width: int = 16
    layers: int = 5
    kernel: int = 5
    family: Literal["autoregressive"] = "autoregressive"

    def __post_init__(self) -> None:
        sizes = (*self.hidden_sizes, self.width, self.layers)
        check_sizes(self.latent_size, sizes, channels=self.channels)
        require(self.kernel in (3, 5, 7), "model.kernel must be 3, 5 or 7")

    def build(self, layout: Layout) -> "AutoregressiveVae":
        """A model with fresh weights from torch's default generator.

        Raises TrainingError unless the observations are gray pixels.
        """
        require(
            layout.observation_shape[0] == 1 and layout.maximum is not None,
            "family autoregressive needs gray images, which it binarizes",
        )
        return AutoregressiveVae(self, layout)


class AutoregressiveVae(nn.Module):
    """q(z given x) Gaussian, p(x given z) a product over binary pixels in reading order."""

    family = "autoregressive"
    likelihood_name = "bernoulli"
    label_count: None = None

    def __init__(self, config: AutoregressiveConfig, layout: Layout) -> None:
        super().__init__()
        shape = layout.observation_shape
        channels = config.channels or stages_for(*shape[1:])
        self.observation_shape = shape
        self.encoder = conv_encoder(
            shape, channels, config.hidden_sizes, 2 * config.latent_size, "silu"
        )
        self.decoder = GatedPixelCnn(
            1,
            embedding=False,
            width=config.width,
            layers=config.layers,
            kernel=config.kernel,
            condition_size=config.latent_size,
        )
        self.noise_shape: tuple[int, ...] = (config.latent_size,)
        self.latent_shape: tuple[int, ...] = (config.latent_size,)
        self._sight = 1 + config.layers * (config.kernel // 2)  # rows that a pixel depends on

    def posterior(self, observations: Tensor, label: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """mean and log_variance of q(z given x), each [N, L]."""
        return gaussian_parameters(self.encoder(observations))

    def prior(self, label: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """mean and log_variance of N(0, 1): two zeros [1, L]."""
        zeros = next(self.parameters()).new_zeros(1, *self.latent_shape)
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
        """[N, L] -> probabilities [N, 1, H, W] along one path: each pixel is white for those behind
        it if that was the likelier. The mean of this likelihood has no closed form; this is no draw
        from it either. One pass of the decoder for each pixel."""
        _, height, width = self.observation_shape
        pixels = latents.new_zeros(len(latents), 1, height, width)
        probabilities = torch.zeros_like(pixels)
        for row in range(height):
            first = max(0, row - self._sight)
            for column in range(width):
                logits = self.decoder(pixels[:, :, first : row + 1], latents)[:, 0, -1, column]
                probabilities[:, 0, row, column] = torch.sigmoid(logits.float())
                pixels[:, 0, row, column] = (logits > 0).to(pixels.dtype)
        return probabilities

    def distortion(
        self, observations: Tensor, latents: Tensor, label: Tensor | None = None
    ) -> Tensor:
        """-ln p(x given z) for binary [N, 1, H, W] and [N, L]: [N] nats."""
        logits = self.decoder(observations, latents).float()
        losses = F.binary_cross_entropy_with_logits(logits, observations, reduction="none")
        return losses.flatten(1).sum(1)

    def elbo_terms(self, observations: Tensor, noise: Tensor, label: Tensor | None = None) -> Terms:
        """rate [N, L], distortion, log_weight and auxiliary [N] for one draw."""
        latents, mean, log_variance = self.encode(observations, noise)
        distortion = self.distortion(observations, latents)
        ratio = 0.5 * (noise.square() + log_variance - latents.square()).sum(1)
        return Terms(
            standard_rate(mean, log_variance),
            distortion,
            ratio - distortion,
            torch.zeros_like(distortion),
        )
