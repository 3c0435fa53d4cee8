"""What Prometheus sees: names, labels and values."""

from collections.abc import Iterator

import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from service.metrics import Metrics
from service.transport import Usage
from tests.service.fake_model import FakeModel

GRAPH = {"model": "digits", "version": "1", "graph": "decoder"}
LOADED = FakeModel(name="digits").model
LABELS = {
    "vae_requests": {"method", "code"},
    "vae_request_duration_seconds": {"method"},
    "vae_queue_delay_seconds": {"model", "version", "graph"},
    "vae_batch_items": {"model", "version", "graph"},
    "vae_batch_duration_seconds": {"model", "version", "graph"},
    "vae_padding_items": {"model", "version", "graph"},
    "vae_failed": {"model", "version", "graph"},
    "vae_rejected": {"model", "version", "graph", "reason", "priority"},
    "vae_cancelled": {"model", "version", "graph"},
    "vae_queue_items": {"model", "version", "graph", "priority"},
    "vae_model_info": {"model", "version", "digest", "provider"},
    "vae_model_load_seconds": {"model", "version"},
    "vae_sessions": {"model"},
    "vae_model_load_failures": {"model"},
    "vae_repository_readable": set(),
    "vae_connections": set(),
    "vae_connections_limit": set(),
    "vae_connections_refused": set(),
    "vae_held_bytes": set(),
    "vae_held_limit_bytes": set(),
}


@pytest.fixture
def metrics() -> Metrics:
    """The metrics of a service with one graph, that answered one request."""
    metrics = Metrics()
    metrics.model_loaded(LOADED, 1.5)
    metrics.queue("digits", 1, "decoder", 2, lambda: {2: 7})
    metrics.call_done("vae.v1.VaeService/Decode", "OK", 0.02)
    observer = metrics.observer("digits", 1, "decoder", levels=2)
    observer.entry_started(0.002)
    observer.batch_done(items=5, padding=3, requests=2, seconds=0.004)
    observer.batch_failed(4)
    observer.entries_cancelled(2)
    observer.entry_rejected("queue_full", 2)
    metrics.follow(
        lambda: Usage(
            connections=3, max_connections=9, refused=2, held_bytes=1000, max_held_bytes=5000
        )
    )
    return metrics


def scrape(metrics: Metrics) -> Iterator[tuple[str, str, Sample]]:
    """Family, type and sample of every line that is not about the process."""
    for family in text_string_to_metric_families(generate_latest(metrics.registry).decode()):
        for sample in family.samples:
            if not family.name.startswith("process_") and not sample.name.endswith("_created"):
                yield family.name, family.type, sample


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(name, labels)


def test_the_families_and_their_labels_are_those_of_the_dashboards(metrics: Metrics) -> None:
    found: dict[str, set[str]] = {}
    for family, _, sample in scrape(metrics):
        found.setdefault(family, set()).update(set(sample.labels) - {"le"})
    assert found == LABELS


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("vae_batch_items_sum", 5.0),
        ("vae_batch_items_count", 1.0),
        ("vae_batch_duration_seconds_count", 1.0),
        ("vae_batch_duration_seconds_sum", 0.004),
        ("vae_queue_delay_seconds_sum", 0.002),
        ("vae_padding_items_total", 3.0),
        ("vae_failed_total", 4.0),
        ("vae_cancelled_total", 2.0),
    ],
)
def test_a_batcher_is_seen_by_model_and_graph(metrics: Metrics, name: str, expected: float) -> None:
    assert value(metrics, name, **GRAPH) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("reason", "level", "expected"),
    [
        ("queue_full", "2", 1.0),
        ("queue_full", "1", 0.0),
        ("draining", "2", 0.0),
        ("expired", "1", 0.0),
        ("expired", "3", None),
    ],
)
def test_rejections_are_counted_by_reason_and_level_from_0_on(
    metrics: Metrics, reason: str, level: str, expected: float | None
) -> None:
    counted = value(metrics, "vae_rejected_total", **GRAPH, reason=reason, priority=level)
    assert counted == expected


def test_a_version_that_is_loaded_again_with_more_levels_counts_them(metrics: Metrics) -> None:
    metrics.observer("digits", 1, "decoder", levels=3).entry_rejected("expired", 3)
    for reason, level in [("expired", "3"), ("queue_full", "2")]:
        assert value(metrics, "vae_rejected_total", **GRAPH, reason=reason, priority=level) == 1.0


def test_finished_requests_are_counted_by_method_and_code(metrics: Metrics) -> None:
    method = "vae.v1.VaeService/Decode"
    metrics.call_done(method, "RESOURCE_EXHAUSTED", 0.01)
    assert value(metrics, "vae_requests_total", method=method, code="OK") == 1.0
    assert value(metrics, "vae_requests_total", method=method, code="RESOURCE_EXHAUSTED") == 1.0
    assert value(metrics, "vae_request_duration_seconds_count", method=method) == 2.0


def test_a_served_version_is_seen_with_its_digest_and_provider(metrics: Metrics) -> None:
    labels = {"model": "digits", "version": "1"}
    assert value(metrics, "vae_model_load_seconds", **labels) == 1.5
    assert (
        value(metrics, "vae_model_info", **labels, digest="digest", provider="CPUExecutionProvider")
        == 1.0
    )


def test_what_clients_take_is_read_at_every_scrape(metrics: Metrics) -> None:
    assert value(metrics, "vae_connections") == 3.0
    assert value(metrics, "vae_connections_refused_total") == 2.0
    assert value(metrics, "vae_held_bytes") == 1000.0
    assert value(metrics, "vae_connections_limit") == 9.0
    assert value(metrics, "vae_held_limit_bytes") == 5000.0


def test_of_a_transport_that_does_not_count_nothing_is_said(metrics: Metrics) -> None:
    metrics.follow(lambda: None)
    assert value(metrics, "vae_connections") is None
    assert value(metrics, "vae_connections_limit") is None


def test_the_length_of_a_queue_is_read_at_every_scrape_for_each_level() -> None:
    metrics, lengths = Metrics(), iter([{1: 4}, {1: 9}, {2: 3}])
    metrics.queue("digits", 1, "decoder", 2, lambda: next(lengths))
    seen = [value(metrics, "vae_queue_items", **GRAPH, priority=level) for level in "112"]
    assert seen == [4.0, 9.0, 3.0]
    metrics.queue("digits", 1, "decoder", 2, dict)
    assert value(metrics, "vae_queue_items", **GRAPH, priority="2") == 0.0


@pytest.mark.parametrize(
    ("family", "kind"),
    [
        ("vae_requests", "counter"),
        ("vae_request_duration_seconds", "histogram"),
        ("vae_queue_items", "gauge"),
        ("vae_model_info", "gauge"),
    ],
)
def test_a_family_has_its_type(metrics: Metrics, family: str, kind: str) -> None:
    assert {found for name, found, _ in scrape(metrics) if name == family} == {kind}


@pytest.mark.parametrize("reason", ["", "models/evil", 'x"} 1'])
def test_an_unknown_reason_makes_no_time_series(metrics: Metrics, reason: str) -> None:
    before = generate_latest(metrics.registry).count(b"vae_rejected_total")
    with pytest.raises(KeyError):
        metrics.observer("digits", 1, "decoder").entry_rejected(reason, 1)
    assert generate_latest(metrics.registry).count(b"vae_rejected_total") == before


def test_the_process_is_seen(metrics: Metrics) -> None:
    assert b"process_cpu_seconds_total" in generate_latest(metrics.registry)


def test_two_services_in_one_process_do_not_share_their_metrics(metrics: Metrics) -> None:
    assert value(Metrics(), "vae_model_load_seconds", model="digits", version="1") is None
