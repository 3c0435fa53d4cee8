"""What the graphs of a model version compute: torch modules of exactly one task each."""

from torch import Tensor, nn

from training.model import Model

LEVELS = 255  # the largest uint8


class Encoder(nn.Module):
    """observations, noise [, label] -> latents, mean, log_variance."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, observations: Tensor, noise: Tensor, label: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """[N, C, H, W] and [N, *noise_shape] -> a draw of the posterior and its parameters."""
        return self.model.encode(observations, noise, label)


class Scorer(nn.Module):
    """observations, noise [, label] -> rate, distortion, log_weight."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, observations: Tensor, noise: Tensor, label: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """[N, C, H, W] and [N, *noise_shape] -> [N] nats each, for that draw of the posterior."""
        rate, distortion, log_weight, _ = self.model.elbo_terms(observations, noise, label)
        assert log_weight is not None, "a model is exported in eval mode"
        return rate.sum(1), distortion, log_weight


class Uint8(nn.Module):
    """A module that takes observations, as one that takes observations_uint8."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(
        self, observations_uint8: Tensor, noise: Tensor, label: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """[N, C, H, W] uint8 and the rest -> as the module for observations_uint8 / 255."""
        observations = observations_uint8.float() * (1 / LEVELS)
        outputs: tuple[Tensor, Tensor, Tensor] = self.module(observations, noise, label)
        return outputs


class Prior(nn.Module):
    """noise [, label] -> latents."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.model = model

    def forward(self, noise: Tensor, label: Tensor | None = None) -> Tensor:
        """[N, *noise_shape] -> a draw of the prior, [N, *latent_shape]."""
        return self.model.sample_prior(noise, label)


class Decoder(nn.Module):
    """latents [, label] -> observations; of pixels, the file adds observations_uint8."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.model = model

    def forward(self, latents: Tensor, label: Tensor | None = None) -> Tensor:
        """[N, *latent_shape] -> [N, C, H, W], the mean of the likelihood."""
        return self.model.decode(latents, label)
