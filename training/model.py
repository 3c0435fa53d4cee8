"""What a model is to everybody else: four methods, which are also the graphs that are exported.

Noise comes in as a tensor, so training, export and service share one code path, and a draw is a
function of its seed. Shapes inside are constants except the first, which is traced as dynamic.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

from torch import Tensor, nn


@dataclass(frozen=True)
class Layout:
    """What a model has to know about its data.

    `observation_shape` is (C, H, W) and `label_count` the number of classes, None without labels.
    `maximum` is the largest level of a pixel, which stands for 1; None if observations are no
    pixels but numbers of any range.
    """

    observation_shape: tuple[int, int, int]
    label_count: int | None = None
    maximum: int | None = 255


class Terms(NamedTuple):
    """One draw's terms for each item, float32 in nats. The ELBO is -(rate summed + distortion).

    rate: [N, G] the KL of each latent unit, or of each latent group of a hierarchy.
    distortion: [N] -ln p(x given z).
    log_weight: [N] ln p(x, z) - ln q(z given x), an importance weight; None in train mode, where
    nothing reads it.
    auxiliary: [N] what the loss adds and the bound does not know; None for nothing.
    """

    rate: Tensor
    distortion: Tensor
    log_weight: Tensor | None = None
    auxiliary: Tensor | None = None


@dataclass(frozen=True)
class LatentGroup:
    """Where a group lies in flat latents: `size` numbers from `offset` on, as (C, H, W)."""

    name: str
    shape: tuple[int, int, int]
    offset: int

    @property
    def size(self) -> int:
        """How many latents it has."""
        return math.prod(self.shape)

    def of(self, flat: Tensor) -> Tensor:
        """Its part [N, *shape] of latents or noise [N, L]."""
        return flat[:, self.offset : self.offset + self.size].reshape(-1, *self.shape)


class Model(Protocol):
    """A module with these attributes and methods; `label` is [N] int64, None without labels.

    Latents are float32; or, of a model that is `Quantized`, int64. `standard_prior` says that the
    prior is N(0, 1), which makes `sample_prior` the identity; `bounds_likelihood` that
    rate + distortion bounds -ln p(x).
    """

    family: str
    likelihood_name: str
    observation_shape: tuple[int, int, int]
    noise_shape: tuple[int, ...]
    latent_shape: tuple[int, ...]
    standard_prior: bool
    bounds_likelihood: bool
    training: bool

    @property
    def label_count(self) -> int | None:
        """How many labels there are; None if the model knows no labels."""

    def encode(
        self, observations: Tensor, noise: Tensor, label: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """[N, C, H, W] in [0, 1] and [N, *noise_shape] -> latents, mean, log_variance."""

    def sample_prior(self, noise: Tensor, label: Tensor | None = None) -> Tensor:
        """[N, *noise_shape] -> latents [N, *latent_shape] drawn from the prior."""

    def decode(self, latents: Tensor, label: Tensor | None = None) -> Tensor:
        """[N, *latent_shape] -> observations [N, C, H, W] in [0, 1], the likelihood's mean."""

    def elbo_terms(self, observations: Tensor, noise: Tensor, label: Tensor | None = None) -> Terms:
        """The terms of observations [N, C, H, W] for one draw of noise [N, *noise_shape]."""

    # What a module has anyway.
    def train(self, mode: bool = True) -> Any: ...
    def eval(self) -> Any: ...
    def parameters(self, recurse: bool = True) -> Iterator[nn.Parameter]: ...
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state_dict: Mapping[str, Any]) -> Any: ...


@runtime_checkable
class Gaussian(Protocol):
    """A model with one diagonal Gaussian posterior and prior: what IWAE and beta-TC need."""

    def posterior(self, observations: Tensor, label: Tensor | None) -> tuple[Tensor, Tensor]:
        """mean and log_variance of q(z given x), each [N, L]."""

    def prior(self, label: Tensor | None) -> tuple[Tensor, Tensor]:
        """mean and log_variance of p(z given y), each [N, L], or [1, L] without labels."""

    def distortion(self, observations: Tensor, latents: Tensor, label: Tensor | None) -> Tensor:
        """-ln p(x given z), [N] nats."""


@runtime_checkable
class Quantized(Protocol):
    """A model whose latents are codes from a codebook, 0 to `code_count` - 1."""

    @property
    def code_count(self) -> int: ...
    def codes(self, observations: Tensor, label: Tensor | None) -> Tensor: ...


@runtime_checkable
class Hierarchical(Protocol):
    """A model whose flat latents have parts, from the top of the hierarchy on."""

    groups: tuple[LatentGroup, ...]


@runtime_checkable
class Prepared(Protocol):
    """A model that needs its data before the first step."""

    def prepare(self, dataset: Any, seed: int) -> None:
        """Set what is not fitted with the rest; `dataset` is a `training.data.Dataset`."""


@runtime_checkable
class DrawsOtherwise(Protocol):
    """A model whose fit takes other noise than its latents do: more, for what it hides, or less."""

    training_noise_shape: tuple[int, ...]  # instead of noise_shape, for `elbo_terms`


@runtime_checkable
class Costly(Protocol):
    """A model whose draws run many convolutions: its log-likelihood gets few of them.

    Unless the caller says how many: so many samples for each of the first so many items.
    """

    importance_samples: int
    importance_items: int


@runtime_checkable
class DrawsPixels(Protocol):
    """A model whose pixels depend on one another, so that a mean says little of a draw."""

    def draw(self, latents: Tensor, noise: Tensor) -> Tensor:
        """Observations [N, 1, H, W] drawn from p(x given z) by logistic noise [N, H, W]."""


@runtime_checkable
class StartsAtMean(Protocol):
    """A model whose decoder can start at the mean of the data."""

    def initialize_output(self, mean_observation: Tensor) -> None:
        """Set the decoder's last bias by the mean [C, H, W] of the training split."""
