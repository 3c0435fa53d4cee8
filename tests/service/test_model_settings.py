"""A model's settings.toml."""

from collections.abc import Callable

import pytest

import service.loading
from service.batching import BatchingOptions
from service.loading import loader, settled
from service.metrics import Metrics
from service.model_settings import ModelSettings, parse_model_settings
from service.repository import RepositoryError
from service.session import CPU, SessionOptions
from tests.service.fake_model import FakeModel


class Nobody:
    """A transport that no request comes from."""

    def when_idle(self, callback: Callable[[], bool]) -> None:
        pass


def test_a_file_says_what_the_model_wants_otherwise() -> None:
    text = b"""
        version_policy = "latest 2"
        max_queue_delay_ms = 1.5
        max_queue_items = 100
        buckets = [1, 8]
        instances = 2
        priority_levels = 4
        default_priority_level = 4
    """
    assert parse_model_settings(text, "a/settings.toml") == ModelSettings(
        version_policy="latest 2",
        max_queue_delay_ms=1.5,
        max_queue_items=100,
        buckets=[1, 8],
        instances=2,
        priority_levels=4,
        default_priority_level=4,
    )


def test_no_file_leaves_everything_as_it_is() -> None:
    version, batching = FakeModel().model.version, BatchingOptions(max_queue_delay=0.25)
    assert settled(version, batching, parse_model_settings(b"", "")) == (version, batching)


def test_a_models_settings_win_over_those_of_the_service_and_the_manifest() -> None:
    served = FakeModel().model.version
    own = ModelSettings(max_queue_delay_ms=2, max_queue_items=7, buckets=[1, 8], priority_levels=5)
    general = BatchingOptions(max_queue_delay=0.25, default_priority_level=1)
    version, batching = settled(served, general, own)
    assert (batching.priority_levels, batching.level(0)) == (5, 3)  # its own middle one
    assert (batching.max_queue_delay, batching.max_queue_items) == (0.002, 7)
    assert list(version.manifest.batch_buckets) == [1, 8]
    assert list(served.manifest.batch_buckets) == [1, 2, 4]


@pytest.mark.parametrize(
    ("recommended", "own", "seconds"),
    [
        (True, ModelSettings(), 0.004),
        (False, ModelSettings(), 0.25),
        (True, ModelSettings(max_queue_delay_ms=2), 0.002),
    ],
)
def test_the_manifests_queue_delay_holds_unless_somebody_says_otherwise(
    monkeypatch: pytest.MonkeyPatch, recommended: bool, own: ModelSettings, seconds: float
) -> None:
    version = FakeModel().model.version
    version.manifest.max_queue_delay.FromMilliseconds(4)
    got: list[BatchingOptions] = []

    monkeypatch.setattr(
        service.loading,
        "load_model",
        lambda version, options, batching, *_, **__: got.append(batching),
    )
    load = loader(
        SessionOptions(CPU, 1),
        BatchingOptions(max_queue_delay=0.25),
        Metrics(),
        Nobody(),
        recommended=recommended,
    )
    load(version, own)
    assert got[0].max_queue_delay == seconds


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"max_queue_delay = 1", "'max_queue_delay' is no setting; the nearest is 'max_queue_"),
        (b"bucket = [1]", "'bucket' is no setting; the nearest is 'buckets'"),
        (b"x = 1", "'x' is no setting; the nearest is "),
        (b"buckets = [4, 1]", "buckets: Value error, expected ascending sizes from 1"),
        (b"buckets = []", "buckets: Value error, expected ascending"),
        (b'buckets = ["1"]', "buckets.0: "),
        (b"instances = 0", "instances: "),
        (b"priority_levels = 11", "priority_levels: "),
        (b"default_priority_level = 1", "expected default_priority_level to be one of priority_"),
        (b"priority_levels = 2\ndefault_priority_level = 3", "to be one of priority_levels"),
        (b"instances = true", "instances: "),
        (b'version_policy = "some"', "version_policy: "),
        (b"max_queue_delay_ms = -1", "max_queue_delay_ms: "),
        (b"instances 2", "is not TOML: "),
        (b"\xff", "is not TOML: "),
    ],
)
def test_what_is_no_setting_is_refused_by_its_name(text: bytes, reason: str) -> None:
    with pytest.raises(RepositoryError) as caught:
        parse_model_settings(text, "a/settings.toml")
    assert str(caught.value).startswith("a/settings.toml")
    assert reason in str(caught.value)
