"""Gated PixelCNN (van den Oord et al. 2016): ln p of a grid as a product over its positions."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_TAIL = 4.5  # standard deviations; float32 tells the distribution function of no more from 0 or 1


class GatedPixelCnn(nn.Module):
    """Logits of each position of a grid, given those before it in row-major order.

    `categories` counts the values of a position; 1 means binary ones from one logit. Inputs are
    codes [N, H, W] int64 if `embedding`, else pixels [N, 1, H, W] float32; sampled pixels lie in
    [0, 1]. `kernel` is the odd side of a convolution, and with `layers` it decides how far a
    position sees: (layers + 1) * (kernel // 2) + 1 positions to its left.
    `condition_size` is the size of a vector that every layer knows, 0 for none.
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
            nn.Conv2d(channels, channels, 1),
            nn.ReLU(),
            nn.Conv2d(channels, categories, 1),
        )

    def forward(self, inputs: Tensor, condition: Tensor | None = None) -> Tensor:
        """Logits [N, categories, H, W]; those of a position know nothing of it and what follows.

        The condition is [N, condition_size], or a map [N, condition_size, H, W] of it. Fewer rows
        than `height` give the logits of these rows.
        """
        if self.embedding is not None:
            inputs = self.embedding(inputs).permute(0, 3, 1, 2)
        if condition is not None and condition.dim() == 2:
            condition = condition[:, :, None, None]
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
        """
        rows: list[Tensor] = []
        blank = torch.zeros_like(noise[:, 0, :1, 0], dtype=torch.int64)
        for row in range(self.height):
            done: list[Tensor] = []
            above = None if condition is None else _first_rows(condition, row + 1)
            for column in range(self.width):
                line = torch.cat([*done, *[blank] * (self.width - column)], 1)
                codes = torch.stack([*rows, line], 1)
                logits = self(self._as_inputs(codes), above)[:, :, row, column]
                done.append(self._choose(logits + noise[:, row, column])[:, None])
            rows.append(torch.cat(done, 1))
        return torch.stack(rows, 1)

    def _choose(self, scores: Tensor) -> Tensor:
        return (scores[:, 0] > 0).long() if self.categories == 1 else scores.argmax(1)

    def _as_inputs(self, codes: Tensor) -> Tensor:
        if self.embedding is not None:
            return codes
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
        half = kernel // 2
        self.shift = shift
        self.above_padding = (half, half, half + shift, 0)
        self.left_padding = (half + shift, 0, 0, 0)
        self.vertical = nn.Conv2d(inputs, 2 * channels, (half + 1, kernel))
        self.horizontal = nn.Conv2d(inputs, 2 * channels, (1, half + 1))
        self.link = nn.Conv2d(2 * channels, 2 * channels, 1)
        self.mix = nn.Conv2d(channels, channels, 1)
        self.condition = (
            nn.Conv2d(condition_size, 4 * channels, 1, bias=False) if condition_size else None
        )

    def forward(
        self, above: Tensor, left: Tensor, condition: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Both stacks' features [N, channels, H, W]."""
        vertical = self.vertical(F.pad(_but_last_rows(above, self.shift), self.above_padding))
        shifted = left[:, :, :, : left.shape[3] - self.shift]
        horizontal = self.horizontal(F.pad(shifted, self.left_padding)) + self.link(vertical)
        if self.condition is not None:
            assert condition is not None, "this PixelCNN needs its condition"
            for_vertical, for_horizontal = self.condition(condition).chunk(2, dim=1)
            vertical, horizontal = vertical + for_vertical, horizontal + for_horizontal
        new_above, new_left = _gate(vertical), self.mix(_gate(horizontal))
        return (new_above, new_left) if self.shift else (above + new_above, left + new_left)


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


def _but_last_rows(features: Tensor, count: int) -> Tensor:
    return features[:, :, : features.shape[2] - count]


def _first_rows(condition: Tensor, count: int) -> Tensor:
    return condition if condition.dim() == 2 else condition[:, :, :count]
