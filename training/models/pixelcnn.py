"""A gated PixelCNN: each position depends on those before it, row by row (van den Oord 2016b).

The vertical stack sees all rows above, the horizontal one the positions to the left in the same row
and, through the vertical one, the rest: no blind spot. Both are shifted by one at the start, so
that every later layer may see its own position.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_EMBEDDING_SIZE = 32


class GatedLayer(nn.Module):
    """One layer of both stacks: [N, W, H, X] each; the horizontal one is residual."""

    def __init__(self, width: int, kernel: int, condition_size: int) -> None:
        super().__init__()
        self.reach = kernel // 2
        self.vertical = nn.Conv2d(width, 2 * width, (self.reach + 1, kernel))
        self.horizontal = nn.Conv2d(width, 2 * width, (1, self.reach + 1))
        self.across = nn.Conv2d(2 * width, 2 * width, 1)
        self.out = nn.Conv2d(width, width, 1)
        self.condition = nn.Linear(condition_size, 4 * width) if condition_size else None

    def forward(
        self, vertical: Tensor, horizontal: Tensor, condition: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Both stacks' features behind this layer."""
        reach = self.reach
        down = self.vertical(F.pad(vertical, (reach, reach, reach, 0)))
        right = self.horizontal(F.pad(horizontal, (reach, 0, 0, 0))) + self.across(down)
        if self.condition is not None:
            assert condition is not None
            first, second = self.condition(condition)[:, :, None, None].chunk(2, dim=1)
            down, right = down + first, right + second
        return _gate(down), horizontal + self.out(_gate(right))


class GatedPixelCnn(nn.Module):
    """Logits of categories at each position, given those before it and a condition.

    With `embedding` the inputs are int64 codes [N, H, W] below `categories`; else pixels
    [N, C, H, W], and one category is the logit of a binary pixel.
    """

    def __init__(
        self,
        categories: int,
        *,
        embedding: bool,
        width: int,
        layers: int,
        channels: int = 1,
        kernel: int = 3,
        condition_size: int = 0,
    ) -> None:
        super().__init__()
        self.categories = categories
        self.embedding = nn.Embedding(categories, _EMBEDDING_SIZE) if embedding else None
        inputs = _EMBEDDING_SIZE if embedding else channels
        self.enter_vertical = nn.Conv2d(inputs, width, 1)
        self.enter_horizontal = nn.Conv2d(inputs, width, 1)
        self.layers = nn.ModuleList(
            GatedLayer(width, kernel, condition_size) for _ in range(layers)
        )
        self.leave = nn.Sequential(
            nn.ReLU(), nn.Conv2d(width, width, 1), nn.ReLU(), nn.Conv2d(width, categories, 1)
        )

    def forward(self, inputs: Tensor, condition: Tensor | None = None) -> Tensor:
        """[N, H, W] codes or [N, C, H, W] pixels, condition [N, condition_size] -> logits
        [N, categories, H, W], where a position's do not depend on itself or what follows it."""
        values = inputs
        if self.embedding is not None:
            values = self.embedding(inputs).permute(0, 3, 1, 2)
        above = F.pad(values, (0, 0, 1, 0))[:, :, :-1]
        left = F.pad(values, (1, 0))[:, :, :, :-1]
        vertical, horizontal = self.enter_vertical(above), self.enter_horizontal(left)
        for layer in self.layers:
            vertical, horizontal = layer(vertical, horizontal, condition)
        logits: Tensor = self.leave(horizontal)
        return logits

    def rate(self, codes: Tensor) -> Tensor:
        """-ln p of codes [N, H, W]: [N] nats."""
        losses = F.cross_entropy(self(codes).float(), codes, reduction="none")
        return losses.flatten(1).sum(1)

    def sample(self, noise: Tensor, condition: Tensor | None = None) -> Tensor:
        """Codes [N, H, W] for Gumbel noise [N, H, W, categories]: a function of the noise alone.

        argmax(logits + noise) is a draw from the softmax of the logits (Gumbel 1954). The loop has
        a step for each position, so that it can be traced; each sees the rows so far only.
        """
        height, width = noise.shape[1:3]
        rows: list[Tensor] = []
        for i in range(height):
            row: list[Tensor] = []
            for j in range(width):
                unknown = noise[:, 0, : width - j, 0].to(torch.int64) * 0
                known = torch.stack([*rows, torch.cat([*row, unknown], dim=1)], dim=1)
                logits = self(known, condition)[:, :, i, j].float()
                row.append((logits + noise[:, i, j]).argmax(1, keepdim=True))
            rows.append(torch.cat(row, dim=1))
        return torch.stack(rows, dim=1)


def gumbel_of(noise: Tensor) -> Tensor:
    """Standard Gumbel noise from standard normal noise of any shape, value by value.

    -ln(-ln(Phi(noise))), Phi the normal distribution function, kept inside (0, 1) in float32.
    """
    uniform = 0.5 * (1 + torch.erf(noise * 0.5**0.5))
    return -torch.log(-torch.log(uniform.clamp(1e-7, 1 - 1e-7)))


def _gate(values: Tensor) -> Tensor:
    first, second = values.chunk(2, dim=1)
    return torch.tanh(first) * torch.sigmoid(second)
