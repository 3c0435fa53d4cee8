"""How likely observations are under a model: the ELBO, its parts and the importance bound."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]


@dataclass(frozen=True)
class Scores:
    """[items] float32 in nats. percentile: of the training data's ELBOs below an item's, 0 to 100;
    None if the version does not hold them."""

    rate: Float32
    distortion: Float32
    elbo: Float32
    importance_bound: Float32
    percentile: Float32 | None


def scores_of(terms: Mapping[str, Float32], draws: int, percentiles: Sequence[float]) -> Scores:
    """Scores from rate, distortion and log_weight [items x draws], an item's draws side by side.

    The importance bound is ln(mean of the weights p(x, z) / q(z given x)) over the draws (Burda et
    al. 2016, equation 8). percentiles: the 0th to 100th of the training data's ELBOs, or none.
    """
    rate, distortion = (terms[name].reshape(-1, draws).mean(1) for name in ("rate", "distortion"))
    weights = terms["log_weight"].reshape(-1, draws).astype(np.float64)
    largest = weights.max(1)
    bound = largest + np.log(np.exp(weights - largest[:, None]).mean(1))
    elbo = -(rate + distortion)
    percentile = None
    if percentiles:
        shares = np.linspace(0, 100, len(percentiles))
        percentile = np.interp(elbo, percentiles, shares).astype(np.float32)
    return Scores(rate, distortion, elbo, bound.astype(np.float32), percentile)
