"""Family "vq": discrete latents from a codebook, and a PixelCNN as their prior (VQ-VAE).

van den Oord et al. 2017. The posterior is deterministic: an observation has one grid of codes. The
prior is fitted beside the rest on the codes of each batch; no gradient goes from it to them. The
bound -ln p(x) <= rate + distortion holds, with -ln p(codes) as the rate.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from training.errors import require
from training.likelihoods import GaussianStd, Likelihood, LikelihoodName, build_likelihood
from training.model import Layout, Terms
from training.models.checks import check_sizes
from training.models.pixelcnn import GatedPixelCnn, gumbel_of
from training.models.quantizer import Quantizer


@dataclass(frozen=True)
class VqConfig:
    """`codes` vectors of `code_size` numbers; `halvings` of height and width to the grid of codes.

    `width` is the channels of the features, `commitment` the weight of an encoder's distance to its
    codes in nats; `prior_width` and `prior_layers` are the PixelCNN's.
    """

    codes: int = 128
    code_size: int = 32
    width: int = 64
    halvings: int = 2
    commitment: float = 0.25
    prior_width: int = 64
    prior_layers: int = 4
    likelihood: LikelihoodName = "gaussian"
    gaussian_std: GaussianStd = "optimal"
    family: Literal["vq"] = "vq"

    def __post_init__(self) -> None:
        sizes = (self.width, self.halvings, self.prior_width, self.prior_layers, self.codes)
        check_sizes(self.code_size, sizes, self.gaussian_std)
        holds = 0 <= self.commitment < math.inf
        require(holds, "model.commitment must be finite and not negative")

    def build(self, layout: Layout) -> "VqVae":
        """A model with fresh weights from torch's default generator.

        Raises TrainingError if the observation cannot be halved so often.
        """
        _, height, width = layout.observation_shape
        factor = 2**self.halvings
        require(
            height % factor == 0 and width % factor == 0,
            f"{self.halvings} model.halvings halve {height}x{width} pixels to no integer",
        )
        return VqVae(self, build_likelihood(self.likelihood, self.gaussian_std, layout), layout)


class Residual(nn.Module):
    """values + two convolutions of them, [N, W, H, X]."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.ReLU(),
            nn.Conv2d(width, width // 2, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(width // 2, width, 1),
        )

    def forward(self, values: Tensor) -> Tensor:
        """Of the same shape."""
        result: Tensor = values + self.layers(values)
        return result


class VqVae(nn.Module):
    """See the module. Latents are codes [N, h, w] int64; noise is normal, [N, h, w, codes]."""

    family = "vq"
    label_count: None = None

    def __init__(self, config: VqConfig, likelihood: Likelihood, layout: Layout) -> None:
        super().__init__()
        self.likelihood = likelihood
        self.likelihood_name: str = likelihood.name
        self.observation_shape = layout.observation_shape
        self.code_count = config.codes
        self.commitment = config.commitment
        channels, height, width = layout.observation_shape
        grid = (height // 2**config.halvings, width // 2**config.halvings)
        self.latent_shape: tuple[int, ...] = grid
        self.noise_shape: tuple[int, ...] = (*grid, config.codes)
        outputs = likelihood.parameter_shape(layout.observation_shape)[0]
        self.encoder = _encoder(channels, config)
        self.decoder = _decoder(outputs, config)
        self.quantizer = Quantizer(config.codes, config.code_size)
        self.prior = GatedPixelCnn(
            config.codes, embedding=True, width=config.prior_width, layers=config.prior_layers
        )

    def codes(self, observations: Tensor, label: Tensor | None = None) -> Tensor:
        """[N, C, H, W] in [0, 1] -> [N, h, w] int64."""
        return self._nearest(self.encoder(observations))

    def encode(
        self, observations: Tensor, noise: Tensor, label: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The codes [N, h, w]; their vectors and zeros, [N, code_size, h, w], stand where others
        have mean and log_variance."""
        codes = self.codes(observations)
        vectors = self._vectors(codes)
        return codes, vectors, torch.zeros_like(vectors)

    def sample_prior(self, noise: Tensor, label: Tensor | None = None) -> Tensor:
        """[N, h, w, codes] standard normal -> codes [N, h, w] of the PixelCNN."""
        return self.prior.sample(gumbel_of(noise))

    def decode(self, latents: Tensor, label: Tensor | None = None) -> Tensor:
        """Codes [N, h, w] -> observations [N, C, H, W]: the mean of the likelihood."""
        return self.likelihood.mean(self.decoder(self._vectors(latents)))

    def elbo_terms(self, observations: Tensor, noise: Tensor, label: Tensor | None = None) -> Terms:
        """rate [N, 1], distortion, log_weight and auxiliary [N]. In training mode the codebook
        moves."""
        encoded = self.encoder(observations).float()
        if self.training:
            by_position = encoded.permute(0, 2, 3, 1)
            flat = self.quantizer(by_position.flatten(0, 2), noise[..., 0])
            codes = flat.view(by_position.shape[:3])
        else:
            codes = self._nearest(encoded)
        vectors = self._vectors(codes)
        through = encoded + (vectors - encoded).detach()  # the decoder's gradient, straight through
        distortion = self.likelihood.distortion(self.decoder(through), observations)
        rate = self.prior.rate(codes)
        distance = (encoded - vectors.detach()).square().flatten(1).sum(1)
        return Terms(rate[:, None], distortion, -(rate + distortion), self.commitment * distance)

    @torch.no_grad()
    def initialize_output(self, mean_observation: Tensor) -> None:
        """Start the decoder at the mean [C, H, W] of the training split, by its last bias."""
        last = self.decoder[-1]
        assert isinstance(last, nn.ConvTranspose2d)
        self.likelihood.initialize(last, mean_observation)

    def _nearest(self, encoded: Tensor) -> Tensor:
        by_position = encoded.float().permute(0, 2, 3, 1)
        codes = self.quantizer.nearest(by_position.flatten(0, 2))
        return codes.reshape(-1, *self.latent_shape)

    def _vectors(self, codes: Tensor) -> Tensor:
        return self.quantizer.look_up(codes).permute(0, 3, 1, 2)


def _encoder(channels: int, config: VqConfig) -> nn.Sequential:
    width = config.width
    layers: list[nn.Module] = []
    for stage in range(config.halvings):
        before = channels if stage == 0 else width
        layers += [nn.Conv2d(before, width, 4, stride=2, padding=1), nn.ReLU()]
    layers += [nn.Conv2d(width, width, 3, padding=1), Residual(width), nn.ReLU()]
    return nn.Sequential(*layers, nn.Conv2d(width, config.code_size, 1))


def _decoder(outputs: int, config: VqConfig) -> nn.Sequential:
    width = config.width
    layers: list[nn.Module] = [
        nn.Conv2d(config.code_size, width, 3, padding=1),
        Residual(width),
    ]
    for stage in range(config.halvings):
        after = outputs if stage == config.halvings - 1 else width
        layers += [nn.ReLU(), nn.ConvTranspose2d(width, after, 4, stride=2, padding=1)]
    return nn.Sequential(*layers)
