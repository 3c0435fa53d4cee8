"""Weights of the rate that grow while a fit goes on, against posterior collapse."""

from typing import Literal

Annealing = Literal["none", "linear", "cyclical"]


def annealed(kind: Annealing, progress: float, fraction: float, cycles: int) -> float:
    """A share in [0, 1] of the final weight after the fraction `progress` of all steps.

    "linear" rises over the first `fraction` (Bowman et al. 2016); "cyclical" does so again in each
    of `cycles` equal parts (Fu et al. 2019), the last of which ends at 1.
    """
    if kind == "none":
        return 1.0
    if kind == "cyclical" and progress < 1:
        progress = progress * cycles % 1
    return min(1.0, progress / fraction)
