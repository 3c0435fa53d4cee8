"""How likely observations are under a model: the ELBO, its parts and the importance bound."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.errors import NotOffered
from service.execution import Execution
from service.model import Model, Observations

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


async def score(
    model: Model,
    observations: Observations,
    draws: int,
    seed: int,
    start_index: int,
    labels: Sequence[int],
    execution: Execution,
) -> Scores:
    """Scores observations [items, ...] with so many draws from each posterior.

    The importance bound is ln(mean of the weights p(x, z) / q(z given x)) over the draws (Burda et
    al. 2016, equation 8). Raises NotOffered if the version has no scorer.
    """
    if "scorer" not in model.batchers:
        raise NotOffered(f"{model.resource} has no scorer: its objective is no bound of likelihood")
    items = len(observations)
    terms = await model.score(observations, draws, seed, start_index, labels, execution)
    rate, distortion = (
        terms[name].reshape(items, draws).mean(1) for name in ("rate", "distortion")
    )
    weights = terms["log_weight"].reshape(items, draws).astype(np.float64)
    largest = weights.max(1)
    bound = largest + np.log(np.exp(weights - largest[:, None]).mean(1))
    elbo = -(rate + distortion)
    levels = model.version.manifest.elbo_percentiles
    percentile = None
    if levels:
        percentile = np.interp(elbo, levels, np.linspace(0, 100, len(levels))).astype(np.float32)
    return Scores(rate, distortion, elbo, bound.astype(np.float32), percentile)
