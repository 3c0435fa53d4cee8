"""Variational autoencoders with a Gaussian posterior and a standard normal prior.

The graphs trace for any batch size: shapes inside are constants except the first, and no
random operator appears; noise comes from the caller.
"""

import math
from itertools import pairwise

import torch
from torch import Tensor, nn

from training.config import ModelConfig
from training.errors import TrainingError
from training.likelihoods import Bernoulli, Gaussian, Likelihood

_ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "tanh": nn.Tanh,
    "silu": nn.SiLU,
    "gelu": nn.GELU,
}
LOG_VARIANCE_RANGE = (-30.0, 20.0)  # exp stays finite and above zero in float32


class Reshape(nn.Module):
    """[N, ...] -> [N, *shape]."""

    def __init__(self, shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.shape = shape

    def forward(self, values: Tensor) -> Tensor:
        """Keep the first dim, whatever it is."""
        return values.reshape(-1, *self.shape)


class Vae(nn.Module):
    """q(z given x) and p(x given z) (Kingma & Welling 2014).

    `encoder` maps observations [N, C, H, W] to [N, 2 L]; `decoder` maps latents [N, L] to the
    logits [N, C, H, W] of the likelihood's mean.
    """

    def __init__(
        self,
        encoder: nn.Sequential,
        decoder: nn.Sequential,
        likelihood: Likelihood,
        observation_shape: tuple[int, int, int],
        latent_size: int,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder
        self.likelihood = likelihood
        self.observation_shape = observation_shape
        self.latent_size = latent_size
        self.likelihood_name: str = likelihood.name

    def encode(self, observations: Tensor) -> tuple[Tensor, Tensor]:
        """[N, C, H, W] float32 in [0, 1] -> mean and log_variance of the posterior, each [N, L].

        log_variance lies in [-30, 20].
        """
        mean, log_variance = self.encoder(observations).chunk(2, dim=1)
        return mean, log_variance.clamp(*LOG_VARIANCE_RANGE)

    def decode_parameters(self, latents: Tensor) -> Tensor:
        """[N, L] -> [N, C, H, W] logits of the mean, for both likelihoods."""
        parameters: Tensor = self.decoder(latents)
        return parameters

    def decode(self, latents: Tensor) -> Tensor:
        """[N, L] -> observations [N, C, H, W] in [0, 1]: the mean of the likelihood."""
        return torch.sigmoid(self.decode_parameters(latents))

    def distortion(self, observations: Tensor, latents: Tensor) -> Tensor:
        """-ln p(x given z) for [N, C, H, W] and [N, L]: [N] nats."""
        return self.likelihood.distortion(self.decode_parameters(latents), observations)

    def forward(self, observations: Tensor) -> Tensor:
        """Reconstruct [N, C, H, W] from the posterior mean."""
        return self.decode(self.encode(observations)[0])

    @torch.no_grad()
    def initialize_output(self, mean_observation: Tensor) -> None:
        """Start the decoder at the mean [C, H, W] of the training split, by its last bias.

        Dense layers have a bias per pixel; convolutions one per channel, the mean over pixels.
        """
        last = self.decoder[-2] if isinstance(self.decoder[-1], Reshape) else self.decoder[-1]
        assert isinstance(last, nn.Linear | nn.ConvTranspose2d)
        assert last.bias is not None
        if isinstance(last, nn.Linear):
            means = mean_observation.flatten()
        else:
            means = mean_observation.mean((1, 2))
        last.bias.copy_(torch.logit(means.clamp(0.01, 0.99)))


def build_model(config: ModelConfig, observation_shape: tuple[int, int, int]) -> Vae:
    """A model with fresh weights from torch's default generator.

    Raises TrainingError if a convolutional model cannot halve the observation often enough.
    """
    build = _dense if config.family == "mlp" else _convolutional
    encoder, decoder = build(config, observation_shape)
    bernoulli = config.likelihood == "bernoulli"
    likelihood = Bernoulli() if bernoulli else Gaussian(config.gaussian_std)
    return Vae(encoder, decoder, likelihood, observation_shape, config.latent_size)


def _layers(sizes: list[int], activation: type[nn.Module]) -> list[nn.Module]:
    """Linear layers through `sizes`, each followed by an activation."""
    layers: list[nn.Module] = []
    for before, after in pairwise(sizes):
        layers += [nn.Linear(before, after), activation()]
    return layers


def _dense(
    config: ModelConfig, observation_shape: tuple[int, int, int]
) -> tuple[nn.Sequential, nn.Sequential]:
    activation = _ACTIVATIONS[config.activation]
    dims = math.prod(observation_shape)
    widths = [dims, *config.hidden_sizes]
    mirrored = [config.latent_size, *reversed(config.hidden_sizes)]
    encoder = nn.Sequential(
        nn.Flatten(1),
        *_layers(widths, activation),
        nn.Linear(widths[-1], 2 * config.latent_size),
    )
    decoder = nn.Sequential(
        *_layers(mirrored, activation),
        nn.Linear(mirrored[-1], dims),
        Reshape(observation_shape),
    )
    return encoder, decoder


def _convolutional(
    config: ModelConfig, observation_shape: tuple[int, int, int]
) -> tuple[nn.Sequential, nn.Sequential]:
    """Kernel 4, stride 2, padding 1 halves and doubles exactly, and leaves no checkerboard."""
    activation = _ACTIVATIONS[config.activation]
    channels, height, width = observation_shape
    factor = 2 ** len(config.channels)
    if height % factor or width % factor:
        raise TrainingError(
            f"{len(config.channels)} model.channels halve {height}x{width} pixels to no integer"
        )
    stages = [channels, *config.channels]
    inner = (stages[-1], height // factor, width // factor)
    widths = [math.prod(inner), *config.hidden_sizes]
    down: list[nn.Module] = []
    for before, after in pairwise(stages):
        down += [nn.Conv2d(before, after, 4, stride=2, padding=1), activation()]
    up: list[nn.Module] = []
    for before, after in pairwise(reversed(stages)):
        up += [activation(), nn.ConvTranspose2d(before, after, 4, stride=2, padding=1)]
    encoder = nn.Sequential(
        *down,
        nn.Flatten(1),
        *_layers(widths, activation),
        nn.Linear(widths[-1], 2 * config.latent_size),
    )
    mirrored = [config.latent_size, *reversed(config.hidden_sizes)]
    decoder = nn.Sequential(
        *_layers(mirrored, activation),
        nn.Linear(mirrored[-1], math.prod(inner)),
        Reshape(inner),
        *up,
    )
    return encoder, decoder
