"""Gated PixelCNN (van den Oord et al. 2016): ln p of a grid as a product over its positions."""

import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._higher_order_ops.scan import scan

from training.models import convolutions

_TAIL = 4.5  # standard deviations; float32 tells the distribution function of no more from 0 or 1


class GatedPixelCnn(nn.Module):
    """Logits of each position of a grid, given those before it in row-major order.

    `categories` counts the values of a position; 1 means binary ones from one logit. Inputs are
    codes [N, H, W] int64 if `embedding`, else pixels [N, 1, H, W] float32; sampled pixels lie in
    [0, 1]. `kernel` is the odd side of a convolution, and with `layers` it decides how far a
    position sees: (layers + 1) * (kernel // 2) + 1 positions to its left.
    `condition_size` is the size of a vector that every layer knows, 0 for none; its weights start
    at 0.
    """

    def __init__(
        self,
        categories: int,
        embedding: bool,
        height: int,
        width: int,
        channels: int,
        layers: int,
        condition_size: int = 0,
        kernel: int = 3,
    ) -> None:
        super().__init__()
        self.categories = categories
        self.height = height
        self.width = width
        self.embedding = nn.Embedding(categories, channels) if embedding else None
        self.first = _GatedLayer(channels if embedding else 1, channels, kernel, condition_size, 1)
        self.layers = nn.ModuleList(
            _GatedLayer(channels, channels, kernel, condition_size) for _ in range(layers)
        )
        self.output = nn.Sequential(
            nn.ReLU(),
            convolutions.Conv2d(channels, channels, 1),
            nn.ReLU(),
            convolutions.Conv2d(channels, categories, 1),
        )

    def forward(self, inputs: Tensor, condition: Tensor | None = None) -> Tensor:
        """Logits [N, categories, H, W]; those of a position know nothing of it and what follows.

        The condition is [N, condition_size], or a map [N, condition_size, H, W] of it.
        """
        if self.embedding is not None:
            inputs = self._as_inputs(inputs)
        condition = _as_map(condition)
        above, left = self.first(inputs, inputs, condition)
        for layer in self.layers:
            above, left = layer(above, left, condition)
        logits: Tensor = self.output(left)
        return logits

    def sample(self, noise: Tensor, condition: Tensor | None = None) -> Tensor:
        """Codes [N, H, W] int64: in each position the argmax of logits + noise.

        With Gumbel noise [N, H, W, categories], see `gumbel`, that is a draw. For the one logit of
        a binary position the code is whether logit + noise is positive: logistic noise, see
        `logistic`, gives a draw, and 0 the likelier value.

        Each layer's features are kept, so that a position costs one column of every layer. It is
        traced under `torch.no_grad`, as torch differentiates no scan that gives integers.
        """
        condition = _as_map(condition)
        # The rows that each layer has to read and those before the first one, which are zeros.
        above = tuple(
            _padding(layer, noise, layer.reach + layer.shift, self.width) for layer in self._all()
        )
        if condition is None and torch.compiler.is_exporting():
            # A graph holds the row once; without this it would be an operator for each position.
            _, by_row = scan(self._next_row, above, noise.transpose(0, 1))
            codes: Tensor = by_row.transpose(0, 1)
            return codes
        rows: list[Tensor] = []
        for row in range(self.height):
            above, line = self._next_row(above, noise[:, row], _row_of(condition, row))
            rows.append(line)
        return torch.stack(rows, 1)

    def _next_row(
        self, above: tuple[Tensor, ...], noise: Tensor, condition: Tensor | None = None
    ) -> tuple[tuple[Tensor, ...], Tensor]:
        """What the row after the next one reads above it, and the next one's codes [N, W]."""
        links: list[tuple[Tensor, ...]] = []
        windows: list[Tensor] = []
        features = above[0]
        for index, layer in enumerate(self._all()):
            windows.append(torch.cat([above[index], features], 2) if index else above[0])
            padded = F.pad(windows[-1], (layer.reach, layer.reach))
            read, link = layer.read_above(padded, condition)
            links.append(link.flatten(2).unbind(2))
            features = features + read if index else read
        left = [[_padding(layer, noise, 1, layer.reach + layer.shift)] for layer in self._all()]
        line: list[Tensor] = []
        for column in range(self.width):
            features = self._next_column(left, [link[column] for link in links])
            for module in self.output:
                features = _at(module, features)
            line.append(self._choose(features + noise[:, column])[:, None])
            left[0].append(self._as_inputs(line[-1][:, None]))
        windows[0] = torch.cat([above[0], torch.cat(left[0][1:], 3)], 2)
        return tuple(window[:, :, 1:].clone() for window in windows), torch.cat(line, 1)

    def _next_column(self, left: list[list[Tensor]], links: list[Tensor]) -> Tensor:
        """The last layer's features [N, channels] of the next position in a row.

        Every layer but the first is given its input in this position, at the end of `left`.
        """
        features = left[0][-1]
        for index, layer in enumerate(self._all()):
            if index:
                left[index].append(features[:, :, None, None])
            window = torch.cat(left[index], 3)[:, :, :, -layer.reach - 1 :]
            read = _at(layer.mix, _gate(_at(layer.horizontal, window) + links[index]))
            features = features + read if index else read
        return features

    def _all(self) -> Iterator["_GatedLayer"]:
        """Every layer, the first one first."""
        yield self.first
        for layer in self.layers:
            assert isinstance(layer, _GatedLayer)
            yield layer

    def _choose(self, scores: Tensor) -> Tensor:
        return (scores[:, 0] > 0).long() if self.categories == 1 else scores.argmax(1)

    def _as_inputs(self, codes: Tensor) -> Tensor:
        """Codes [N, H, W] as the first layer's input, [N, channels or 1, H, W]."""
        if self.embedding is not None:
            embedded: Tensor = self.embedding(codes).permute(0, 3, 1, 2)
            return embedded
        return codes[:, None].float() / max(1, self.categories - 1)


class _GatedLayer(nn.Module):
    """A vertical stack, which sees the rows above, and a horizontal one, which sees the left.

    Both are shifted by `shift`: 1 in the first layer (mask A), so that `above` in a row knows the
    rows before it alone, whole ones, and `left` may use it as it is. No position is left out.
    """

    def __init__(
        self, inputs: int, channels: int, kernel: int, condition_size: int, shift: int = 0
    ) -> None:
        super().__init__()
        self.reach = kernel // 2
        self.shift = shift
        self.vertical = convolutions.Conv2d(inputs, 2 * channels, (self.reach + 1, kernel))
        self.horizontal = convolutions.Conv2d(inputs, 2 * channels, (1, self.reach + 1))
        self.link = convolutions.Conv2d(2 * channels, 2 * channels, 1)
        self.mix = convolutions.Conv2d(channels, channels, 1)
        self.condition = (
            convolutions.Conv2d(condition_size, 4 * channels, 1, bias=False)
            if condition_size
            else None
        )
        if self.condition is not None:  # to heed the condition has to be learnt
            nn.init.zeros_(self.condition.weight)

    def forward(
        self, above: Tensor, left: Tensor, condition: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Both stacks' features [N, channels, H, W]."""
        before = self.reach + self.shift
        rows = F.pad(_but_last_rows(above, self.shift), (self.reach, self.reach, before, 0))
        new_above, link = self.read_above(rows, condition)
        columns = F.pad(left[:, :, :, : left.shape[3] - self.shift], (before, 0, 0, 0))
        new_left = self.read_left(columns, link)
        return (new_above, new_left) if self.shift else (above + new_above, left + new_left)

    def read_above(self, rows: Tensor, condition: Tensor | None) -> tuple[Tensor, Tensor]:
        """What padded rows add to the vertical stack, and what the horizontal one reads of it."""
        vertical = self.vertical(rows)
        link = self.link(vertical)
        if self.condition is not None:
            assert condition is not None, "this PixelCNN needs its condition"
            for_vertical, for_horizontal = self.condition(condition).chunk(2, dim=1)
            vertical, link = vertical + for_vertical, link + for_horizontal
        return _gate(vertical), link

    def read_left(self, columns: Tensor, link: Tensor) -> Tensor:
        """What padded columns add to the horizontal stack."""
        added: Tensor = self.mix(_gate(self.horizontal(columns) + link))
        return added


def gumbel(noise: Tensor) -> Tensor:
    """Standard normal numbers as standard Gumbel ones, of the same quantile."""
    lower, upper = _tails(noise)
    # -ln(-ln u), from the tail that float32 knows better.
    return -torch.log(torch.where(noise < 0, -torch.log(lower), -torch.log1p(-upper)))


def logistic(noise: Tensor) -> Tensor:
    """Standard normal numbers as standard logistic ones, of the same quantile."""
    lower, upper = _tails(noise)
    return torch.log(lower) - torch.log(upper)


def _tails(noise: Tensor) -> tuple[Tensor, Tensor]:
    error = torch.erf(noise.clamp(-_TAIL, _TAIL) / math.sqrt(2))
    return 0.5 * (1 + error), 0.5 * (1 - error)


def _gate(features: Tensor) -> Tensor:
    values, gates = features.chunk(2, dim=1)
    return torch.tanh(values) * torch.sigmoid(gates)


def _at(module: nn.Module, window: Tensor) -> Tensor:
    """A module where it fits on the window once: [N, ...] -> [N, outputs].

    A convolution is a product there, which takes the whole batch at a time.
    """
    if not isinstance(module, nn.Conv2d):
        return module(window)  # type: ignore[no-any-return]
    return F.linear(window.flatten(1), module.weight.flatten(1), module.bias)


def _but_last_rows(features: Tensor, count: int) -> Tensor:
    return features[:, :, : features.shape[2] - count]


def _padding(layer: "_GatedLayer", like: Tensor, height: int, width: int) -> Tensor:
    """Zeros [N, channels, height, width] before what `layer` is given."""
    return like.new_zeros(like.shape[0], layer.vertical.in_channels, height, width)


def _as_map(condition: Tensor | None) -> Tensor | None:
    if condition is None or condition.dim() == 4:
        return condition
    return condition[:, :, None, None]


def _row_of(condition: Tensor | None, row: int) -> Tensor | None:
    """One row of a map; all there is of a map of one position."""
    if condition is None or condition.shape[2] == 1:
        return condition
    return condition[:, :, row : row + 1]
