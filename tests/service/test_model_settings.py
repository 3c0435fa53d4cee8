"""A model's settings.toml."""

import pytest

from service.batching import BatchingOptions
from service.loading import settled
from service.model_settings import ModelSettings, parse_model_settings
from service.repository import RepositoryError
from tests.service.fake_model import FakeModel


def test_a_file_says_what_the_model_wants_otherwise() -> None:
    text = b"""
        version_policy = "latest 2"
        max_queue_delay_ms = 1.5
        max_queue_items = 100
        buckets = [1, 8]
        instances = 2
    """
    assert parse_model_settings(text, "a/settings.toml") == ModelSettings(
        version_policy="latest 2",
        max_queue_delay_ms=1.5,
        max_queue_items=100,
        buckets=[1, 8],
        instances=2,
    )


def test_no_file_leaves_everything_as_it_is() -> None:
    version, batching = FakeModel().model.version, BatchingOptions(max_queue_delay=0.25)
    assert settled(version, batching, parse_model_settings(b"", "")) == (version, batching)


def test_a_models_settings_win_over_those_of_the_service_and_the_manifest() -> None:
    served = FakeModel().model.version
    own = ModelSettings(max_queue_delay_ms=2, max_queue_items=7, buckets=[1, 8])
    version, batching = settled(served, BatchingOptions(max_queue_delay=0.25), own)
    assert (batching.max_queue_delay, batching.max_queue_items) == (0.002, 7)
    assert list(version.manifest.batch_buckets) == [1, 8]
    assert list(served.manifest.batch_buckets) == [1, 2, 4]


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
