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

_WIDEST_ROWS = 16  # values: the wider, the more of a row's matrix is zero


class Conv2d(nn.Conv2d):
    """As torch's, on values in either order."""

    def forward(self, values: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, C', H', W'], channels last."""
        if is_fitted_on_cpu(self, values):
            if values.shape[1] == 1:  # in both orders at once: the strides say which one is meant
                values = values.reshape(-1, *values.shape[2:], 1).permute(0, 3, 1, 2)
            values = values.contiguous(memory_format=torch.channels_last)
        return super().forward(values)


class ConvTranspose2d(nn.ConvTranspose2d):
    """As torch's, but for how it is derived."""

    def forward(self, values: Tensor, output_size: list[int] | None = None) -> Tensor:
        """[N, C, H, W] -> [N, C', H', W'], in the order of the values."""
        if output_size is not None or self.bias is None or not is_fitted_on_cpu(self, values):
            return super().forward(values, output_size)
        weight = self.weight.to(values.dtype)
        if self.out_channels == 1 and _doubles(self):
            rows = values.dtype == torch.bfloat16 and values.shape[3] <= _WIDEST_ROWS
            function = _RowProducts if rows else _ShiftedSums
            apply = cast("Callable[[Tensor, Tensor], Tensor]", function.apply)
            return apply(values, weight).add_(self.bias)
        settings = self.stride, self.padding, self.output_padding, self.groups, self.dilation
        transposed = cast("Callable[..., Tensor]", _BiasApart.apply)
        return transposed(values, weight, self.bias.to(values.dtype), settings)


class _BiasApart(torch.autograd.Function):
    """A transposed convolution whose bias has a sum as its gradient.

    oneDNN's is a by-product of the weights', which it derives once more for it: a third of the
    layer's derivatives.
    """

    @staticmethod
    def forward(ctx: Any, values: Tensor, weight: Tensor, bias: Tensor, settings: Any) -> Tensor:
        """[N, C, H, W] -> [N, C', H', W'], in the order of the values."""
        ctx.save_for_backward(values, weight)
        ctx.settings = settings
        return F.conv_transpose2d(values, weight, bias, *settings)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """oneDNN's, and the bias's."""
        values, weight = ctx.saved_tensors
        stride, padding, output_padding, groups, dilation = ctx.settings
        by_values, by_weight, _ = torch.ops.aten.convolution_backward(
            gradient,
            values,
            weight,
            None,
            stride,
            padding,
            dilation,
            True,
            output_padding,
            groups,
            (ctx.needs_input_grad[0], True, False),
        )
        return by_values, by_weight, gradient.sum((0, 2, 3)), None


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


class _RowProducts(torch.autograd.Function):
    """The same in bfloat16: each row of values times the four rows of outputs that it reaches.

    Most of what is multiplied is zero, but the products are of three dense matrices, of which a
    processor with instructions for bfloat16 computes 8 times as many.
    """

    @staticmethod
    def forward(ctx: Any, values: Tensor, weight: Tensor) -> Tensor:
        """[N, C, H, W] channels last and [C, 1, 4, 4] -> [N, 1, 2 H, 2 W] float32."""
        count, _, height, width = values.shape
        rows = values.permute(0, 2, 3, 1).reshape(count * height, -1)
        band = _band(weight, width)
        ctx.save_for_backward(rows, band)
        ctx.shape = values.shape
        taps = (rows @ band.t()).view(count, height, 2, -1)
        # With a frame of one pixel: value i reaches rows 2 i to 2 i + 3.
        framed = taps.new_empty(count, height + 1, taps.shape[3], dtype=torch.float32)
        framed[:, :-1] = taps[:, :, 0]
        framed[:, -1].zero_()
        framed[:, 1:] += taps[:, :, 1]
        return framed.view(count, 1, 2 * height + 2, -1)[..., 1:-1, 1:-1].contiguous()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        """The gradient's rows times the same matrix, and times the values."""
        rows, band = ctx.saved_tensors
        count, channels, height, width = ctx.shape
        framed = F.pad(gradient[:, 0].to(rows.dtype), (1, 1, 1, 1))
        line = 2 * width + 2
        strides = (framed.stride(0), 2 * line, 1)
        reached = framed.as_strided((count, height, 4 * line), strides).reshape(-1, 4 * line)
        by_values = (reached @ band).view(count, height, width, channels).permute(0, 3, 1, 2)
        by_weight = _diagonals(reached.t() @ rows, width).sum(1)
        return by_values, by_weight.permute(2, 0, 1).unsqueeze(1)


def _band(weight: Tensor, width: int) -> Tensor:
    """[C, 1, 4, 4] -> [4 (2 W + 2), W C]: what a row of values is to the four rows it reaches."""
    band = weight.new_zeros(4 * (2 * width + 2), width * len(weight))
    _diagonals(band, width).copy_(weight.permute(2, 1, 3, 0))
    return band


def _diagonals(band: Tensor, width: int) -> Tensor:
    """[4, W, 4, C]: the view of a band's weights; value j reaches columns 2 j to 2 j + 3."""
    line, size = 2 * width + 2, band.shape[1]
    channels = size // width
    return band.as_strided((4, width, 4, channels), (line * size, 2 * size + channels, size, 1))


class Linear(nn.Linear):
    """As torch's, beside convolutions: bfloat16 where autocast has them so.

    There the gradient of the weights is a product of float32, for
    `training.precision.rounded_products` to round; it needs no cast.
    """

    def forward(self, values: Tensor) -> Tensor:
        """[N, inputs] -> [N, outputs]."""
        if not is_fitted_on_cpu(self, values) or not torch.is_autocast_enabled("cpu"):
            return super().forward(values)
        apply = cast("Callable[..., Tensor]", _Products.apply)
        dtype = torch.get_autocast_dtype("cpu")
        return apply(values.to(dtype), self.weight, self.bias)


class _Products(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """[N, inputs], and float32 [outputs, inputs] and [outputs] -> [N, outputs]."""
        weight = weight.to(values.dtype)
        ctx.save_for_backward(values, weight)
        return torch.addmm(bias.to(values.dtype), values, weight.t())

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """In the precision of the values, and float32 twice."""
        values, weight = ctx.saved_tensors
        of_outputs = gradient.float()
        return gradient @ weight, of_outputs.t() @ values.float(), of_outputs.sum(0)


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
        if is_fitted_on_cpu(self, values):
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
    if not is_fitted_on_cpu(module, values):
        return values
    return _in_order(values, torch.channels_last, torch.contiguous_format)


def _in_order(values: Tensor, before: torch.memory_format, after: torch.memory_format) -> Tensor:
    if not values.requires_grad:
        return values.contiguous(memory_format=after)
    apply = cast("Callable[..., Tensor]", _InOrder.apply)
    return apply(values, before, after)


def is_fitted_on_cpu(module: nn.Module, values: Tensor) -> bool:
    """Whether a layer is in train mode, and its values on a CPU."""
    return module.training and values.device.type == "cpu"


def _doubles(layer: nn.ConvTranspose2d) -> bool:
    """Whether it is of the kind that doubles height and width exactly."""
    settings = layer.kernel_size, layer.stride, layer.padding, layer.output_padding, layer.dilation
    return settings == ((4, 4), (2, 2), (1, 1), (0, 0), (1, 1)) and layer.groups == 1
