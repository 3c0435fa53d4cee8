"""Encoders and decoders of dense and convolutional layers."""

import math
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

from training.errors import TrainingError, require
from training.models import convolutions

Activation = Literal["relu", "tanh", "silu", "gelu"]
_ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "tanh": nn.Tanh,
    "silu": nn.SiLU,
    "gelu": nn.GELU,
}
_SMALLEST_SIDE = 4  # of the last stage of convolutions that follow the data
_WIDEST_STAGE = 128


class Linear(nn.Linear):
    """As torch's, and float32 in a fit on a CPU, also under autocast.

    `training.precision.rounded_products` then has the products in bfloat16; what they are made of
    needs no casts.
    """

    def forward(self, values: Tensor) -> Tensor:
        """[..., inputs] -> [..., outputs]."""
        if not convolutions.is_fitted_on_cpu(self, values):
            return super().forward(values)
        with torch.autocast("cpu", enabled=False):
            return super().forward(values.to(self.weight.dtype))


class Reshape(nn.Module):
    """[N, ...] -> [N, *shape]."""

    def __init__(self, shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.shape = shape

    def forward(self, values: Tensor) -> Tensor:
        """Keep the first dim, whatever it is."""
        return values.reshape(-1, *self.shape)


def dense_stack(
    sizes: list[int], activation: Activation, linear: type[nn.Linear] = Linear
) -> list[nn.Module]:
    """Linear layers through `sizes`, each followed by an activation."""
    layers: list[nn.Module] = []
    for before, after in pairwise(sizes):
        layers += [linear(before, after), _ACTIVATIONS[activation]()]
    return layers


def dense_encoder(
    inputs: int,
    hidden_sizes: tuple[int, ...],
    outputs: int,
    activation: Activation,
    linear: type[nn.Linear] = Linear,
) -> nn.Sequential:
    """[N, ...] of `inputs` numbers -> [N, outputs]."""
    widths = [inputs, *hidden_sizes]
    return nn.Sequential(
        nn.Flatten(1), *dense_stack(widths, activation, linear), linear(widths[-1], outputs)
    )


def dense_decoder(
    inputs: int,
    hidden_sizes: tuple[int, ...],
    shape: tuple[int, int, int],
    activation: Activation,
    linear: type[nn.Linear] = Linear,
) -> nn.Sequential:
    """[N, inputs] -> [N, *shape]; `hidden_sizes` are the encoder's and are mirrored here."""
    widths = [inputs, *reversed(hidden_sizes)]
    last = linear(widths[-1], math.prod(shape))
    return nn.Sequential(*dense_stack(widths, activation, linear), last, Reshape(shape))


def conv_encoder(
    shape: tuple[int, int, int],
    channels: tuple[int, ...],
    hidden_sizes: tuple[int, ...],
    outputs: int,
    activation: Activation,
) -> nn.Sequential:
    """[N, *shape] -> [N, outputs]. Kernel 4, stride 2, padding 1 halves exactly."""
    down: list[nn.Module] = []
    for before, after in pairwise([shape[0], *channels]):
        down += [
            convolutions.Conv2d(before, after, 4, stride=2, padding=1),
            _ACTIVATIONS[activation](),
        ]
    inner = math.prod(_inner_shape(shape, channels))
    linear = convolutions.Linear
    _, *dense = dense_encoder(inner, hidden_sizes, outputs, activation, linear)
    return nn.Sequential(*down, convolutions.Flatten(), *dense)


def conv_decoder(
    inputs: int,
    hidden_sizes: tuple[int, ...],
    channels: tuple[int, ...],
    shape: tuple[int, int, int],
    activation: Activation,
) -> nn.Sequential:
    """[N, inputs] -> [N, *shape], mirrored; doubles exactly and leaves no checkerboard."""
    up: list[nn.Module] = []
    for before, after in pairwise([*reversed(channels), shape[0]]):
        up += [
            _ACTIVATIONS[activation](),
            convolutions.ConvTranspose2d(before, after, 4, stride=2, padding=1),
        ]
    inner = _inner_shape(shape, channels)
    linear = convolutions.Linear
    *dense, _ = dense_decoder(inputs, hidden_sizes, inner, activation, linear)
    return nn.Sequential(*dense, convolutions.Reshape(inner), *up, convolutions.ChannelsFirst())


def stages_for(height: int, width: int) -> tuple[int, ...]:
    """Channels of stages that halve as often as both sides stay whole and at least 4 pixels."""
    channels: list[int] = []
    while min(height, width) >= 2 * _SMALLEST_SIDE and height % 2 == width % 2 == 0:
        height, width = height // 2, width // 2
        channels.append(min(_WIDEST_STAGE, 32 * 2 ** len(channels)))
    require(bool(channels), f"no convolution halves {height}x{width} pixels; set data.image_size")
    return tuple(channels)


def output_layer(decoder: nn.Sequential) -> nn.Linear | nn.ConvTranspose2d:
    """The layer whose bias is the decoder's last."""
    shapes = Reshape | convolutions.ChannelsFirst
    last = decoder[-2] if isinstance(decoder[-1], shapes) else decoder[-1]
    assert isinstance(last, nn.Linear | nn.ConvTranspose2d)
    return last


def _inner_shape(shape: tuple[int, int, int], channels: tuple[int, ...]) -> tuple[int, int, int]:
    _, height, width = shape
    factor = 2 ** len(channels)
    if height % factor or width % factor:
        raise TrainingError(
            f"{len(channels)} model.channels halve {height}x{width} pixels to no integer"
        )
    return channels[-1], height // factor, width // factor
