"""`--check`: loads what the service would serve, says how that went, and serves nothing."""

from collections.abc import Callable

from service.control import NOT_WANTED, READY, Control
from service.loading import loader
from service.logs import make_logger
from service.metrics import Metrics
from service.model import Model, Models
from service.server import batching_options, make_source, session_options
from service.settings import Settings

_HEADINGS = ("model", "version", "state", "provider", "graphs", "digest", "reason")


class _Nobody:
    """A transport that no request comes from."""

    def when_idle(self, callback: Callable[[], bool]) -> None:
        """Nothing waits."""

    def call_soon(self, callback: Callable[[], object]) -> None:
        """Nobody is answered."""


def check(settings: Settings) -> tuple[str, bool]:
    """A table of the versions that would be served, and whether each can be.

    Under explicit control that is every model of the repository. Raises RepositoryError if it
    cannot be read, and ProviderError if the execution provider cannot be had.
    """
    options = session_options(settings)
    metrics = Metrics()
    snapshots: list[Models] = []
    control = Control(
        make_source(settings),
        settings.version_policy,
        loader(options, batching_options(settings), metrics, _Nobody()),
        snapshots.append,
        metrics,
        make_logger("critical"),
        precision=settings.precision,
    )
    failures = control.follow()
    loaded = {
        (model.version.name, model.version.version): model
        for snapshot in snapshots
        for model in snapshot.all
    }
    rows: list[tuple[str, ...]] = [_HEADINGS]
    for state in control.states:
        if state.reason != NOT_WANTED:
            model = loaded.get((state.name, state.version))
            rows.append(
                (state.name, str(state.version), state.state, *_columns(model), state.reason)
            )
    ready = [state for state in control.states if state.state == READY]
    control.close()
    return _table(rows), bool(ready) and not failures


def _columns(model: Model | None) -> tuple[str, str, str]:
    if model is None:
        return ("", "", "")
    return (model.provider, str(len(model.batchers)), model.version.digest[:12])


def _table(rows: list[tuple[str, ...]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = (
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )
    return "\n".join(lines)
