"""Family "perceptual": a conv VAE that is also to look right to a classifier.

The loss adds the distance between features of the observation and of the decoded mean, in a
classifier that was fitted on the same data before (Johnson et al. 2016). The objective is then no
ELBO: rate and distortion still bound the log-likelihood, but the fit does not minimize that bound.
"""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from training.classifier import Classifier, fit_classifier
from training.distributed import mean_over_processes
from training.errors import require
from training.likelihoods import GaussianStd
from training.model import Layout
from training.models.checks import check_sizes
from training.models.conv import ConvConfig
from training.models.vae import Vae

if TYPE_CHECKING:
    from training.data import Dataset

_LEAST = 1e-12  # of features that see nothing


@dataclass(frozen=True)
class PerceptualConfig:
    """Settings as of family "conv" with a Gaussian likelihood; `weight` multiplies the distance of
    features, in nats.

    A deviation that is learned or optimal becomes so small that the pixels outweigh the features.
    """

    latent_size: int = 32
    hidden_sizes: tuple[int, ...] = (256,)
    channels: tuple[int, ...] = (32, 64)
    gaussian_std: GaussianStd = 0.3
    weight: float = 1000.0
    family: Literal["perceptual"] = "perceptual"

    def __post_init__(self) -> None:
        check_sizes(self.latent_size, self.hidden_sizes, self.gaussian_std, self.channels)
        require(0 <= self.weight < math.inf, "model.weight must be finite and not negative")

    def build(self, layout: Layout) -> "PerceptualVae":
        """A model with fresh weights from torch's default generator.

        Raises TrainingError if the data have no labels, which the classifier needs.
        """
        require(layout.label_count is not None, "family perceptual needs a data set with labels")
        plain = ConvConfig(
            self.latent_size,
            self.hidden_sizes,
            self.channels,
            "gaussian",
            "silu",
            self.gaussian_std,
        ).build(layout)
        return PerceptualVae(plain, layout, self.weight)


class PerceptualVae(Vae):
    """See the module. `prepare` fits the classifier, whose weights then go with the model's."""

    def __init__(self, plain: Vae, layout: Layout, weight: float) -> None:
        super().__init__(
            "perceptual",
            plain.encoder,
            plain.decoder,
            plain.likelihood,
            layout,
            plain.latent_shape[0],
        )
        assert layout.label_count is not None
        self.weight = weight
        self.classifier = Classifier(layout.observation_shape, layout.label_count)
        self.classifier.requires_grad_(False)

    def prepare(self, dataset: "Dataset", seed: int) -> None:
        """Fit the classifier."""
        classifier, _ = fit_classifier(dataset, seed)
        self.classifier.load_state_dict(classifier.state_dict())

    def auxiliary(self, parameters: Tensor, observations: Tensor) -> Tensor:
        """[N]: the weighted distance of features."""
        return self.weight * self._distance(self.likelihood.mean(parameters), observations)

    def _distance(self, decoded: Tensor, observations: Tensor) -> Tensor:
        """[N]: the squared distance of each layer's features, as a share of their mean square.

        They keep their length: with features of unit length, a faint stroke is as good as a black
        one, and what is blurred is faint.
        """
        with torch.no_grad():
            wanted = self.classifier.features(observations)
        total = torch.zeros(len(observations), device=observations.device)
        for mine, theirs in zip(self.classifier.features(decoded), wanted, strict=True):
            size = mean_over_processes(theirs.square().mean()).clamp(min=_LEAST)
            total = total + (mine - theirs).square().flatten(1).mean(1) / size
        return total
