"""What is served: loads, swaps and unloads versions, and publishes each change as one snapshot.

A swap loses no request: the new version is loaded and warm before a snapshot with it replaces the
one with the old, and the old one's batchers close only when no request holds its model any more. A
load that fails leaves what is served as it is.

Calls block while they load and wait for each other; none belongs on a thread that answers requests.
"""

import contextlib
import gc
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from service.batching import Batcher
from service.errors import LoadFailed, ModelNotFound
from service.logs import Logger
from service.model import Model, Models
from service.model_settings import SETTINGS_FILE, ModelSettings, parse_model_settings
from service.repository import ModelVersion, RepositoryError, read_version, shown
from service.session import GraphError, ProviderError
from service.sources import Listed, Source
from service.version_policy import chosen

READY, LOADING, UNAVAILABLE = "READY", "LOADING", "UNAVAILABLE"  # Triton's words
NOT_WANTED = "not loaded"
_LONGEST_WAIT = 30.0
Load = Callable[[ModelVersion, ModelSettings], Model]


class LoadObserver(Protocol):
    """What loads report, for metrics."""

    def model_loaded(self, model: Model, seconds: float) -> None: ...
    def model_unloaded(self, name: str, version: int) -> None: ...
    def load_failed(self, name: str) -> None: ...
    def sessions_closed(self, name: str, count: int) -> None: ...


@dataclass(frozen=True)
class VersionState:
    """A version as an operator sees it. reason: why it is not READY."""

    name: str
    version: int
    state: str
    reason: str = ""


@dataclass(frozen=True)
class _Record:
    """A version that was loaded, or could not be. made_of: its files and settings then."""

    made_of: tuple[str, bytes]
    model: Model | None = None
    error: Exception | None = None


class Control:
    """The served models of a source."""

    def __init__(
        self,
        source: Source,
        policy: str,
        load: Load,
        publish: Callable[[Models], None],
        observer: LoadObserver,
        log: Logger,
        wanted: Iterable[str] | None = None,
        precision: str = "float32",
    ) -> None:
        """policy: of models without one of their own. wanted: names to serve; None: all there are.
        precision: of graphs that there are several of.

        publish gets every snapshot, from the thread that loads.
        """
        self.states: tuple[VersionState, ...] = ()  # read by any thread
        self._source = source
        self._policy = policy
        self._load = load
        self._publish = publish
        self._observer = observer
        self._log = log
        self._precision = precision
        self._wanted = None if wanted is None else set(wanted)
        self._records: dict[str, dict[int, _Record]] = {}
        self._published: frozenset[Model] = frozenset()
        self._not_ready: frozenset[str] | None = None  # None before the first snapshot
        self._turn = threading.Lock()
        self._closed = False

    def follow(self) -> list[Exception]:
        """Serves what is wanted as the source has it now; what kept versions from being loaded.

        Raises RepositoryError if the source cannot say what it has; then nothing changes.
        """
        with self._turn:
            listed = self._source.list()
            for name in sorted(listed.keys() | self._records.keys() | (self._wanted or set())):
                self._follow(name, listed.get(name))
            self._publish_all(listed)
            return [
                record.error
                for records in self._records.values()
                for record in records.values()
                if record.error is not None
            ]

    def load(self, name: str) -> None:
        """Wants a model from now on, and serves its versions as they are now.

        Raises ModelNotFound if the source has no such model, and LoadFailed, with what was served
        before still served, if a version cannot be loaded. RepositoryError is as in follow().
        """
        with self._turn:
            listed = self._source.list()
            if name not in listed:
                raise ModelNotFound(f"the repository has no model {shown(name)}")
            if self._wanted is not None:
                self._wanted.add(name)
            kept = self._records.get(name, {})
            self._records[name] = {  # what failed is tried again
                version: record for version, record in kept.items() if record.error is None
            }
            self._follow(name, listed[name])
            self._publish_all(listed)
            for record in self._records[name].values():
                if record.error is not None:
                    raise LoadFailed(self._reason(record.error)) from record.error

    def unload(self, name: str) -> None:
        """Wants a model no longer. Raises ModelNotFound if none of it is loaded."""
        with self._turn:
            if name not in self._records:
                raise ModelNotFound(f"no model {shown(name)} is loaded")
            if self._wanted is not None:
                self._wanted.discard(name)
            listed: Mapping[str, Listed] = {}
            with contextlib.suppress(RepositoryError):  # memory is given back all the same
                listed = self._source.list()
            self._follow(name, listed.get(name))
            self._publish_all(listed)

    def unserved(self) -> bool:
        """Whether there is nothing to serve yet: no model, or one without any loaded version."""
        names = {state.name for state in self.states if state.reason != NOT_WANTED}
        ready = {state.name for state in self.states if state.state == READY}
        return names != ready or (self._wanted is None and not names)

    @property
    def served(self) -> int:
        """How many versions are served."""
        return len(self._published)

    def refuse(self) -> None:
        """Answers what waits for a batch, and what still comes, with DRAINING; what runs ends."""
        for model in self._published:
            for batcher in model.batchers.values():
                batcher.stop()

    def close(self, seconds: float = -1) -> bool:
        """Loads no more, and stops the batchers of what is served.

        The transport has stopped before. Returns False if a version is being loaded for so many
        seconds more, which nothing interrupts; -1 waits for it.
        """
        self._closed = True
        if not self._turn.acquire(timeout=seconds):
            return False
        try:
            self.refuse()
        finally:
            self._turn.release()
        return True

    def _follow(self, name: str, listed: Listed | None) -> None:
        records = self._records.setdefault(name, {})
        there = listed.versions if listed is not None else {}
        wanted: dict[int, tuple[str, bytes]] = {}
        if listed is not None and (self._wanted is None or name in self._wanted):
            try:
                own = parse_model_settings(listed.settings, f"{name}/{SETTINGS_FILE}")
            except RepositoryError as error:
                # With settings that nobody can read, what is served stays, and nothing is loaded.
                self._refuse(name, max(there), (there[max(there)], listed.settings), error)
                return
            for version in sorted(chosen(own.version_policy or self._policy, there)):
                wanted[version] = made_of = (there.get(version, ""), listed.settings)
                if self._closed:
                    return
                if version not in records or records[version].made_of != made_of:
                    self._load_version(name, version, made_of, own)
        failed = any(records[version].error for version in wanted)
        for version in records.keys() - wanted.keys():
            # The old version stays while the new one fails, unless it was taken away.
            if not (failed and version in there and records[version].model):
                del records[version]
        if not records:
            del self._records[name]

    def _load_version(
        self, name: str, version: int, made_of: tuple[str, bytes], own: ModelSettings
    ) -> None:
        self._show(VersionState(name, version, LOADING))
        started = time.monotonic()
        try:
            if not made_of[0]:
                raise RepositoryError(f"{name}/{version} is not in the repository")
            root = self._source.fetch(name, version)
            read = read_version(root, name, version, self._precision)
            model = self._load(read, own)
        except Exception as error:  # noqa: BLE001 - a reload's boundary: what is served goes on
            self._refuse(name, version, made_of, error)
            return
        seconds = time.monotonic() - started
        self._records[name][version] = _Record(made_of, model)
        self._observer.model_loaded(model, seconds)
        self._log.info(
            "model_loaded",
            model=model.resource,
            provider=model.provider,
            digest=read.digest,
            seconds=round(seconds, 3),
        )

    def _refuse(
        self, name: str, version: int, made_of: tuple[str, bytes], error: Exception
    ) -> None:
        """Remembers a failed load, until its files change; what is loaded of it stays."""
        records = self._records[name]
        before = records.get(version)
        if before is not None and before.error is not None and before.made_of == made_of:
            return
        records[version] = _Record(made_of, before.model if before else None, error)
        self._show(self._state(name, version, records[version]))  # before anybody reads the log
        self._observer.load_failed(name)
        known = isinstance(error, RepositoryError | GraphError | ProviderError)
        self._log.error(
            "model_load_failed",
            model=f"models/{name}/versions/{version}",
            reason=str(error),
            kept=[kept for kept, record in sorted(records.items()) if record.model],
            exc_info=None if known else error,
        )
        # Its frames would keep what was loaded before it failed.
        error.__traceback__ = error.__cause__ = error.__context__ = None

    def _publish_all(self, listed: Mapping[str, Listed]) -> None:
        """Publishes what is loaded, if that has changed, and lets go of what was."""
        self._show_all(listed)
        models = [
            record.model
            for records in self._records.values()
            for record in records.values()
            if record.model is not None
        ]
        self._source.keep({model.version.digest for model in models})
        served = frozenset(models)
        not_ready = frozenset(self._records.keys() - {model.version.name for model in models})
        if (served, not_ready) == (self._published, self._not_ready):
            return
        self._publish(Models(models, not_ready))
        before, self._published, self._not_ready = self._published, served, not_ready
        names = {(model.version.name, model.version.version) for model in models}
        for model in before - served:
            name, version = model.version.name, model.version.version
            if (name, version) not in names:
                self._observer.model_unloaded(name, version)
            self._let_go(model)

    def _let_go(self, model: Model) -> None:
        """Closes a model's batchers as soon as no request can come to them any more."""
        gone = threading.Event()
        weakref.finalize(model, gone.set).atexit = False
        sessions = model.version.files
        arguments = (model.resource, model.version.name, sessions, model.batchers, gone)
        threading.Thread(
            target=self._close, args=arguments, name="model-unload", daemon=True
        ).start()

    def _close(
        self,
        resource: str,
        name: str,
        sessions: int,
        batchers: Mapping[str, Batcher],
        gone: threading.Event,
    ) -> None:
        wait = 1.0
        while not gone.wait(wait):
            # A failed call's error and its frames hold each other, and with them the model.
            gc.collect()
            wait = min(2 * wait, _LONGEST_WAIT)
        for batcher in batchers.values():
            batcher.drain()
        self._observer.sessions_closed(name, sessions)
        self._log.info("model_unloaded", model=resource)

    def _show(self, state: VersionState) -> None:
        others = [
            other
            for other in self.states
            if (other.name, other.version) != (state.name, state.version)
        ]
        self.states = tuple(sorted((*others, state), key=lambda each: (each.name, each.version)))

    def _show_all(self, listed: Mapping[str, Listed]) -> None:
        states = {
            (name, version): VersionState(name, version, UNAVAILABLE, NOT_WANTED)
            for name, model in listed.items()
            for version in model.versions
        }
        for name, records in self._records.items():
            for version, record in records.items():
                states[name, version] = self._state(name, version, record)
        self.states = tuple(states[key] for key in sorted(states))

    def _state(self, name: str, version: int, record: _Record) -> VersionState:
        reason = self._reason(record.error) if record.error is not None else ""
        return VersionState(name, version, UNAVAILABLE if record.model is None else READY, reason)

    def _reason(self, error: Exception) -> str:
        """An error for the wire: paths are the repository's own, nothing else is told."""
        if isinstance(error, RepositoryError | GraphError | ProviderError):
            return str(error).replace(f"{self._source.place}/", "")
        return "the load failed; the service's log says why"
