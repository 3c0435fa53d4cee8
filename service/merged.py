"""What several processes say as one: their metrics, whether they live and whether they are ready.

Each serves its own on a port of loopback (`probes`); the process that started them asks them.
"""

import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor

from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from service.probes import METRICS

_SECONDS = 5.0  # for an answer
Ports = Callable[[], Mapping[int, int]]
"""The ports of the processes that listen now, by their numbers."""


class MergedMetrics(Collector):
    """The metrics of all processes, each sample with the label `process`.

    So nothing is counted twice, and a sum is right.
    """

    def __init__(self, ports: Ports) -> None:
        self._ports = ports

    def collect(self) -> list[Metric]:
        """Asks every process; one that does not answer is left out."""
        merged: dict[str, Metric] = {}
        for process, text in _ask(self._ports(), METRICS).items():
            for family in text_string_to_metric_families(text or ""):
                whole = merged.setdefault(
                    family.name, Metric(family.name, family.documentation, family.type)
                )
                for sample in family.samples:
                    labels = {**sample.labels, "process": str(process)}
                    whole.samples.append(sample._replace(labels=labels))
        return list(merged.values())


def all_say_yes(ports: Ports, probe: str) -> bool:
    """Whether each process that listens answers a probe's path with 200."""
    return None not in _ask(ports(), probe).values()


def _ask(ports: Mapping[int, int], path: str) -> dict[int, str | None]:
    """What each process answers, all asked at once; None where that is not 200."""
    with ThreadPoolExecutor(max(len(ports), 1)) as threads:
        answers = threads.map(lambda port: _get(f"http://127.0.0.1:{port}{path}"), ports.values())
        return dict(zip(ports, answers, strict=True))


def _get(url: str) -> str | None:
    try:
        with urllib.request.urlopen(url, timeout=_SECONDS) as response:  # noqa: S310 - ours
            return str(response.read().decode())
    except (urllib.error.URLError, OSError):
        return None
