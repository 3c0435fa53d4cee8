"""What is measured of a version's files when it is made, for its manifest."""

import math

import numpy as np
from google.protobuf.duration_pb2 import Duration
from vae.manifest.v1 import manifest_pb2

from export.latency import buckets_to_measure, latency_tables, recommended_buckets
from export.optimization import node_counts
from export.stored import value_of


def add_measurements(manifest: manifest_pb2.Manifest, files: dict[str, bytes]) -> None:
    """Fill in node counts, latencies, and the batching that these suggest.

    The queue delay is 0: an idle session takes what there is, and while it runs the queue fills by
    itself, so under load batches are full without anybody's waiting.
    """
    shape = manifest.observations.shape[1:]
    buckets = buckets_to_measure(math.prod(shape) * np.dtype(np.float32).itemsize)
    for graph in manifest.graphs:
        content = files[graph.file]
        graph.node_count, graph.optimized_node_count = node_counts(content)
        inputs = tuple(value_of(spec) for spec in graph.inputs)
        graph.latency_tables.extend(latency_tables(content, inputs, buckets))
    tables = [
        table
        for graph in manifest.graphs
        if graph.precision == "float32"  # every service has these
        for table in graph.latency_tables
    ]
    manifest.batch_buckets[:] = recommended_buckets(tables)
    manifest.max_queue_delay.CopyFrom(Duration())
