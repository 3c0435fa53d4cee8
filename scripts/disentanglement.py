"""`python -m scripts.disentanglement`: the beta-TCVAE's mutual information gap beside a VAE's.

Fits preset shapes-beta-tc, and the same network with the plain bound, with each seed; writes
training/results/shapes-disentanglement.json after each fit, so that it can be stopped and goes on,
and docs/results.md at the end. Two fits on a core each are faster than one on two cores.
"""

import argparse
import json
import os
import statistics
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from scripts.training_results import RESULTS, fit_and_evaluate, write_page, write_results

_NAME = "shapes-disentanglement"
_METRIC = "mutual_information_gap"
_GOAL = 2.0
# The plain VAE is the beta-VAE's preset at weight 1: both presets have one network.
VARIANTS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "plain": ("shapes-beta", ("objective.kl_weight=1",)),
    "total correlation": ("shapes-beta-tc", ()),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns 0, or 1 if a fit failed or the goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="settings")
    parser.add_argument("--jobs", type=int, default=2, help="fits at once, a core each")
    options = parser.parse_args(arguments)
    path = RESULTS / f"{_NAME}.json"
    fits: list[dict[str, Any]] = json.loads(path.read_text())["fits"] if path.exists() else []
    there = {(fit["variant"], fit["seed"]) for fit in fits}
    wanted = [(variant, seed) for seed in options.seeds for variant in VARIANTS]
    missing = [each for each in wanted if each not in there]
    os.environ["OMP_NUM_THREADS"] = str(max(1, len(os.sched_getaffinity(0)) // options.jobs))
    with ThreadPoolExecutor(options.jobs) as pool:
        for fit in pool.map(partial(_fit, options.settings), missing):
            if fit is not None:
                fits.append(fit)
                write_results(_NAME, {"results": rows(fits), "fits": fits})
    write_page()
    results = rows(fits)
    return 0 if len(fits) >= len(wanted) and all(row["met"] for row in results) else 1


def rows(fits: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One row: the ratio of the medians over the seeds; none before every variant has a fit.

    It says how many seeds the variant with fewer has.
    """
    gaps = {
        variant: [fit[_METRIC] for fit in fits if fit["variant"] == variant] for variant in VARIANTS
    }
    if not all(gaps.values()):
        return []
    plain, other = (statistics.median(values) for values in gaps.values())
    seeds = min(len(values) for values in gaps.values())
    return [
        {
            "preset": "shapes-beta-tc",
            "metric": f"mutual information gap over the plain VAE's, median of {seeds}",
            "value": other / plain,
            "goal": _GOAL,
            "at_most": False,
            "met": other >= _GOAL * plain,
            "paper": None,
            "source": "",
            "device": fits[0]["device"],
            "seconds": sum(fit["seconds"] for fit in fits),
            "command": "python -m scripts.disentanglement",
        }
    ]


def _fit(more: Sequence[str], wanted: tuple[str, int]) -> dict[str, Any] | None:
    variant, seed = wanted
    preset, settings = VARIANTS[variant]
    label = f"{variant.replace(' ', '-')}-{seed}"
    done = fit_and_evaluate(preset, label, [*settings, f"seed={seed}", *more])
    if done is None:
        return None
    evaluation, about = done
    kept = {name: evaluation[name] for name in (_METRIC, "elbo", "rate", "active_units")}
    print(f"{variant}, seed {seed}: {_METRIC} {kept[_METRIC]:.3f}", flush=True)
    return {"variant": variant, "seed": seed, **kept, **about}


if __name__ == "__main__":
    sys.exit(main())
