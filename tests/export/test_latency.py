from collections.abc import Mapping

import pytest
from vae.manifest.v1 import manifest_pb2

from export.graphs import Graph
from export.latency import (
    BUCKETS,
    buckets_to_measure,
    latency_tables,
    recommended_buckets,
)
from export.measurements import add_measurements
from export.optimization import node_counts


def table(**seconds: float) -> manifest_pb2.LatencyTable:
    """Of rows b1=..., b2=..."""
    rows = [
        manifest_pb2.BatchLatency(batch_size=int(name[1:]), seconds=duration)
        for name, duration in seconds.items()
    ]
    return manifest_pb2.LatencyTable(batches=rows)


def lasting(fixed: float, each: float) -> manifest_pb2.LatencyTable:
    """A fixed time for a batch and a time for each item."""
    return table(**{f"b{size}": fixed + each * size for size in BUCKETS})


def test_a_graph_is_measured_at_every_bucket(graphs: Mapping[str, tuple[Graph, ...]]) -> None:
    encoder = graphs["mlp"][0]
    (measured,) = latency_tables(encoder.content, encoder.inputs)
    assert measured.execution_provider == "CPUExecutionProvider"
    assert (measured.threads, bool(measured.device)) == (1, True)
    assert [row.batch_size for row in measured.batches] == list(BUCKETS)
    assert all(row.seconds > 0 for row in measured.batches)


def test_batches_that_take_no_longer_than_larger_ones_are_left_out() -> None:
    """10 ms and 0.1 ms for each item: 36 ms for 256, 23 for 128, 16 for 64, 12 for 16."""
    assert recommended_buckets([lasting(10e-3, 0.1e-3)]) == [1, 16, 64, 128, 256]


def test_the_largest_batch_is_where_throughput_stops_to_grow() -> None:
    assert recommended_buckets([lasting(0.0, 10e-3)]) == [1, 2, 4, 8, 16]


def test_a_graph_that_is_quicker_in_small_batches_still_gets_16() -> None:
    slower = lasting(0.0, 10e-3)
    for row in slower.batches:
        row.seconds *= row.batch_size**0.2
    assert recommended_buckets([slower])[-1] == 16


def test_what_runs_short_gets_large_batches() -> None:
    """What the service spends on a batch counts: alone these items would run as fast one by one."""
    assert recommended_buckets([lasting(0.0, 6e-6)])[-1] == 256


@pytest.mark.parametrize(
    ("observation_bytes", "largest"),
    [(1, 256), (784 * 4, 256), (2**16, 256), (2**16 + 1, 128), (2**17 + 1, 64), (2**30, 64)],
)
def test_large_batches_are_for_what_is_small(observation_bytes: int, largest: int) -> None:
    assert buckets_to_measure(observation_bytes)[-1] == largest


def test_every_graph_gets_the_batches_that_it_needs() -> None:
    assert recommended_buckets([lasting(0.0, 10e-3), lasting(10e-3, 0.1e-3)]) == list(BUCKETS)


def test_a_manifest_holds_what_was_measured(graphs: Mapping[str, tuple[Graph, ...]]) -> None:
    files = {graph.file: graph.content for graph in graphs["mlp"]}
    manifest = manifest_pb2.Manifest(
        graphs=[
            {
                "file": graph.file,
                "precision": "float32",
                "inputs": [
                    {
                        "name": value.name,
                        "shape": [-1, *value.shape],
                        "data_type": f"DATA_TYPE_{value.data_type.upper()}",
                    }
                    for value in graph.inputs
                ],
            }
            for graph in graphs["mlp"]
        ]
    )
    add_measurements(manifest, files)
    for graph in manifest.graphs:
        assert 0 < graph.optimized_node_count <= graph.node_count
        assert len(graph.latency_tables[0].batches) == len(BUCKETS)
    assert manifest.batch_buckets[0] == 1
    assert set(manifest.batch_buckets) <= set(BUCKETS)
    assert manifest.HasField("max_queue_delay")


def test_optimization_folds_nodes(graphs: Mapping[str, tuple[Graph, ...]]) -> None:
    before, after = node_counts(graphs["conv"][0].content)
    assert 0 < after < before
