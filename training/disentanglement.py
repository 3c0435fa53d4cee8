"""The mutual information gap: whether each factor of variation has a latent of its own."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]
_BINS = 20


@dataclass(frozen=True)
class InformationGap:
    """score: the mutual information gap, mean over the factors that vary; 1 is best.

    by_factor: [F] each factor's gap, NaN for a factor that is constant in these items.
    information: [L, F] mutual information between latent and factor, in nats.
    """

    score: float
    by_factor: Float64
    information: Float64


def mutual_information_gap(
    codes: NDArray[np.floating], factors: NDArray[np.integer], bins: int = _BINS
) -> InformationGap:
    """MIG (Chen et al. 2018) of codes [N, L], posterior means, and factors [N, F], classes.

    A gap is the difference between the two latents that tell most about a factor, over the
    factor's entropy. Each latent is cut into `bins` bins of equal width between its extremes
    (Locatello et al. 2019); the estimate is too high where N is not much larger than bins times
    classes. A factor that no picture shows wholly, such as the angle of a square beyond 90
    degrees, goes through `fold_symmetry` first. Raises ValueError if no factor varies.
    """
    binned = [_bin(code, bins) for code in codes.T.astype(np.float64)]
    classes = [np.unique(factor, return_inverse=True)[1] for factor in factors.T]
    information = np.array([[_information(b, c) for c in classes] for b in binned])
    entropies = np.array([_entropy(np.bincount(c)) for c in classes])
    if not entropies.any():
        raise ValueError("the gap needs a factor that varies")
    alone = np.zeros((1, len(classes)))  # the second latent of a code that has one only
    best, second = np.sort(np.concatenate([information, alone]), axis=0)[:-3:-1]
    by_factor = np.full(len(classes), np.nan)
    np.divide(best - second, entropies, out=by_factor, where=entropies > 0)
    return InformationGap(float(np.nanmean(by_factor)), by_factor, information)


def fold_symmetry(steps: Int64, periods: Int64) -> Int64:
    """A cyclic factor's steps [N] as what can be seen, with the period [N] of each item's shape.

    40 steps of a turn, for example: 40 for a heart, 20 for an ellipse, 10 for a square, 1 for a
    disc. Equal pictures get equal steps.
    """
    folded: Int64 = steps % periods
    return folded


def _bin(code: Float64, bins: int) -> Int64:
    low, high = code.min(), code.max()
    if low == high:
        return np.zeros(len(code), np.int64)
    scaled: Float64 = (code - low) / (high - low) * bins
    return np.minimum(scaled, bins - 1).astype(np.int64)


def _information(first: Int64, second: Int64) -> float:
    """Mutual information of two class vectors: H(first) + H(second) - H(both), in nats."""
    classes = second.max() + 1
    both = np.bincount(first * classes + second)
    information = _entropy(np.bincount(first)) + _entropy(np.bincount(second)) - _entropy(both)
    return max(0.0, information)


def _entropy(counts: Int64) -> float:
    shares = counts[counts > 0] / counts.sum()
    return float(-(shares * np.log(shares)).sum())
