"""Bounds on the log-likelihood from importance samples, for any model that has log-weights.

The weight of a draw is w = p(x, z) / q(z given x). The bound of k draws is the expectation of
ln((w_1 + ... + w_k) / k) (Burda et al. 2016): the ELBO at k = 1, never lower with a larger k, and
ln p(x) in the limit. So the bound of some thousand draws is reported as the log-likelihood.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

LogWeight = Callable[[Tensor, Tensor, Tensor | None], Tensor]
"""observations [N, ...], noise [N, ...] and labels [N] or None -> ln w [N] in nats."""

_ROWS = 4000


@dataclass(frozen=True)
class Bound:
    """The bound of k draws, in nats per item, over a set of items.

    standard_error: of `value` as an estimate for new items, from the spread over items.
    monte_carlo_error: of `value` for these very items, from the spread over draws (delta method).
    effective_sample_size: (sum w)^2 / sum w^2, mean over items; k if the posterior is exact, and
    near 1 where a single draw decides: then the bound is far below ln p(x).
    """

    k: int
    value: float
    standard_error: float
    monte_carlo_error: float
    effective_sample_size: float


class _Groups:
    """Log-weights of n items that arrive in blocks, taken k draws at a time.

    Only running sums are kept: of w and of w^2, as logarithms in float64.
    """

    def __init__(self, k: int, items: Tensor) -> None:
        self.k = k
        self.done = 0
        self.bounds = torch.zeros(len(items), dtype=torch.float64, device=items.device)
        self.sizes = torch.zeros_like(self.bounds)
        self.variances = torch.zeros_like(self.bounds)
        self._begin()

    def _begin(self) -> None:
        self._filled = 0
        self._log_sum = torch.full_like(self.bounds, -math.inf)
        self._log_square_sum = torch.full_like(self.bounds, -math.inf)

    def add(self, log_weights: Tensor) -> None:
        """Take [draws, n] float64."""
        while len(log_weights):
            whole = 0 if self._filled else len(log_weights) // self.k
            if whole:
                taken, log_weights = log_weights.tensor_split([whole * self.k])
                groups = taken.view(whole, self.k, -1)
                self._finish(groups.logsumexp(1), (2 * groups).logsumexp(1))
                continue
            taken, log_weights = log_weights.tensor_split([self.k - self._filled])
            self._filled += len(taken)
            self._log_sum = torch.logaddexp(self._log_sum, taken.logsumexp(0))
            self._log_square_sum = torch.logaddexp(self._log_square_sum, (2 * taken).logsumexp(0))
            if self._filled == self.k:
                self._finish(self._log_sum[None], self._log_square_sum[None])
                self._begin()

    def _finish(self, log_sums: Tensor, log_square_sums: Tensor) -> None:
        inverse_sizes = torch.exp(log_square_sums - 2 * log_sums)
        self.done += len(log_sums)
        self.bounds += (log_sums - math.log(self.k)).sum(0)
        self.sizes += (1 / inverse_sizes).sum(0)
        self.variances += (inverse_sizes - 1 / self.k).clamp_min(0).sum(0)


@torch.no_grad()
def importance_bounds(
    log_weight: LogWeight,
    observations: Tensor,
    noise_shape: Sequence[int],
    ks: Sequence[int],
    generator: torch.Generator,
    label: Tensor | None = None,
    rows: int = _ROWS,
) -> list[Bound]:
    """The bounds of the given numbers of draws, in their order.

    All of them share max(ks) draws for each of the observations [N, ...]: a smaller k is averaged
    over max(ks) // k groups. `noise_shape` is one item's; the noise is standard normal and comes
    from `generator`, on whose device it is drawn. At most `rows` rows, items times draws, run at
    once, so that neither many items nor many draws need memory; another `rows` is another draw.
    Raises ValueError without items or draws.
    """
    return prepared_bounds(
        lambda items, labels: log_weight, observations, noise_shape, ks, generator, label, rows
    )


@torch.no_grad()
def prepared_bounds(
    prepare: Callable[[Tensor, Tensor | None], LogWeight],
    observations: Tensor,
    noise_shape: Sequence[int],
    ks: Sequence[int],
    generator: torch.Generator,
    label: Tensor | None = None,
    rows: int = _ROWS,
) -> list[Bound]:
    """As `importance_bounds`, with log-weights that are prepared once for all draws of some items.

    `prepare` takes n items and their labels, and what it returns is called with rows that are
    these items in their order, again and again: an encoder need not run for every draw.
    """
    if not len(observations) or not ks or min(ks) < 1:
        raise ValueError("a bound takes at least one item and one draw")
    chunks = range(0, len(observations), rows)
    groups = [[_Groups(k, observations[i : i + rows]) for k in ks] for i in chunks]
    for i, of_chunk in zip(chunks, groups, strict=True):
        items = observations[i : i + rows]
        labels = None if label is None else label[i : i + rows]
        log_weight = prepare(items, labels)
        left = max(ks)
        while left:
            draws = min(left, max(1, rows // len(items)))
            log_weights = _log_weights(log_weight, items, labels, draws, noise_shape, generator)
            for of_k in of_chunk:
                of_k.add(log_weights)
            left -= draws
    return [_bound(k, of_k) for k, of_k in zip(ks, zip(*groups, strict=True), strict=True)]


def _log_weights(
    log_weight: LogWeight,
    items: Tensor,
    labels: Tensor | None,
    draws: int,
    noise_shape: Sequence[int],
    generator: torch.Generator,
) -> Tensor:
    """[draws, n] float64 from one call with draws * n rows."""
    rows = (draws * len(items), *noise_shape)
    noise = torch.randn(rows, generator=generator, device=generator.device).to(items.device)
    repeated = items.repeat(draws, *[1] * (items.dim() - 1))
    weights = log_weight(repeated, noise, None if labels is None else labels.repeat(draws))
    return weights.double().view(draws, len(items))


def _bound(k: int, chunks: Sequence[_Groups]) -> Bound:
    values = torch.cat([chunk.bounds / chunk.done for chunk in chunks])
    sizes = torch.cat([chunk.sizes / chunk.done for chunk in chunks])
    variances = torch.cat([chunk.variances / chunk.done**2 for chunk in chunks])
    count = len(values)
    spread = values.std().item() if count > 1 else math.nan
    return Bound(
        k,
        values.mean().item(),
        standard_error=spread / math.sqrt(count),
        monte_carlo_error=math.sqrt(variances.sum().item()) / count,
        effective_sample_size=sizes.mean().item(),
    )
