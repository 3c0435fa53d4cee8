"""Convolutions that are fitted on a CPU with their channels innermost in memory.

oneDNN is faster on values in this order, which torch calls channels-last; shapes stay [N, C, H, W].
It holds in train mode on a CPU alone: evaluation, export and other devices have torch's own layers.
"""

from collections.abc import Callable
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


class Conv2d(nn.Conv2d):
    """As torch's, on values in either order."""

    def forward(self, values: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, C', H', W'], channels last."""
        if _is_fitted_on_cpu(self, values):
            if values.shape[1] == 1:  # in both orders at once: the strides say which one is meant
                values = values.reshape(-1, *values.shape[2:], 1).permute(0, 3, 1, 2)
            values = values.contiguous(memory_format=torch.channels_last)
        return super().forward(values)


class ConvTranspose2d(nn.ConvTranspose2d):
    """As torch's, with the bias added afterwards.

    Its gradient is then a sum. Within the layer it is a by-product of the weights', which are
    derived once more for it: a third of the layer's derivatives.
    """

    def forward(self, values: Tensor, output_size: list[int] | None = None) -> Tensor:
        """[N, C, H, W] -> [N, C', H', W'], in the order of the values."""
        if output_size is not None or self.bias is None or not _is_fitted_on_cpu(self, values):
            return super().forward(values, output_size)
        if self.out_channels == 1 and _doubles(self):
            apply = cast("Callable[[Tensor, Tensor], Tensor]", _ShiftedSums.apply)
            return apply(values, self.weight.to(values.dtype)).add_(self.bias)
        assert not isinstance(self.padding, str)  # that is for convolutions which do not stride
        outputs = F.conv_transpose2d(
            values,
            self.weight,
            None,
            self.stride,
            self.padding,
            self.output_padding,
            self.groups,
            self.dilation,
        )
        return outputs.add_(self.bias.to(outputs.dtype)[:, None, None])


class _ShiftedSums(torch.autograd.Function):
    """A transposed convolution to one channel: kernel 4, stride 2, padding 1, no bias.

    The products of values and weights are one of matrices, and each output is the sum of four of
    them, two rows by two columns. oneDNN is made for many channels.
    """

    @staticmethod
    def forward(ctx: Any, values: Tensor, weight: Tensor) -> Tensor:
        """[N, C, H, W] channels last and [C, 1, 4, 4] -> [N, 1, 2 H, 2 W] float32."""
        ctx.save_for_backward(values, weight)
        count, channels, height, width = values.shape
        products = weight.view(channels, 16).t() @ values.permute(1, 0, 2, 3).reshape(channels, -1)
        taps = products.float().view(4, 4, count, height, width)
        # Outputs 2 i and 2 i + 1 have taps 1 and 2 of value i, 3 of the one before, 0 of the next.
        rows = taps.new_empty(4, count, height, 2, width)
        rows.copy_(taps[1:3].permute(1, 2, 3, 0, 4))
        rows[:, :, 1:, 0] += taps[3][:, :, :-1]
        rows[:, :, :-1, 1] += taps[0][:, :, 1:]
        outputs = taps.new_empty(count, 1, 2 * height, 2 * width)
        columns = outputs.view(count, height, 2, width, 2)
        columns.copy_(rows[1:3].permute(1, 2, 3, 4, 0))
        columns[..., 1:, 0] += rows[3][..., :-1]
        columns[..., :-1, 1] += rows[0][..., 1:]
        return outputs

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor]:
        """oneDNN's."""
        values, weight = ctx.saved_tensors
        gradient = gradient.to(values.dtype)
        by_values, by_weight, _ = torch.ops.aten.convolution_backward(
            gradient,
            values,
            weight,
            None,
            (2, 2),
            (1, 1),
            (1, 1),
            True,
            (0, 0),
            1,
            (ctx.needs_input_grad[0], True, False),
        )
        return by_values, by_weight


class Flatten(nn.Module):
    """Where dense layers follow convolutions: [N, C, H, W] -> [N, C * H * W], channels first."""

    def forward(self, values: Tensor) -> Tensor:
        """The gradient is channels last."""
        return _channels_first(self, values).flatten(1)


class ChannelsFirst(nn.Module):
    """After the last convolution: the values, in the order of the observations."""

    def forward(self, values: Tensor) -> Tensor:
        """[N, C, H, W] -> the same, channels first."""
        return _channels_first(self, values)


class Reshape(nn.Module):
    """Where convolutions follow dense layers: [N, C * H * W], channels first -> [N, *shape]."""

    def __init__(self, shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.shape = shape

    def forward(self, values: Tensor) -> Tensor:
        """Channels last; the gradient is channels first."""
        values = values.reshape(-1, *self.shape)
        if _is_fitted_on_cpu(self, values):
            values = _in_order(values, torch.contiguous_format, torch.channels_last)
        return values


class _InOrder(torch.autograd.Function):
    """Values in another order, and their gradient in the one before.

    Without the latter, activations would be derived from values in one order and gradients in the
    other, which costs more than the convolutions gain.
    """

    @staticmethod
    def forward(
        ctx: Any, values: Tensor, before: torch.memory_format, after: torch.memory_format
    ) -> Tensor:
        """[N, C, H, W] -> the same, copied unless it is in order `after`."""
        ctx.before = before
        return values.contiguous(memory_format=after)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        """[N, C, H, W] -> the same, in order `before`."""
        return gradient.contiguous(memory_format=ctx.before), None, None


def _channels_first(module: nn.Module, values: Tensor) -> Tensor:
    if not _is_fitted_on_cpu(module, values):
        return values
    return _in_order(values, torch.channels_last, torch.contiguous_format)


def _in_order(values: Tensor, before: torch.memory_format, after: torch.memory_format) -> Tensor:
    if not values.requires_grad:
        return values.contiguous(memory_format=after)
    apply = cast("Callable[..., Tensor]", _InOrder.apply)
    return apply(values, before, after)


def _is_fitted_on_cpu(module: nn.Module, values: Tensor) -> bool:
    return module.training and values.device.type == "cpu"


def _doubles(layer: nn.ConvTranspose2d) -> bool:
    """Whether it is of the kind that doubles height and width exactly."""
    settings = layer.kernel_size, layer.stride, layer.padding, layer.output_padding, layer.dilation
    return settings == ((4, 4), (2, 2), (1, 1), (0, 0), (1, 1)) and layer.groups == 1
