"""A version for people: one line for each graph, from the manifest alone."""

from vae.manifest.v1 import manifest_pb2

_HEADER = (
    "graph",
    "KiB",
    "opset",
    "nodes",
    "optimized",
    "precision",
    "differs by",
    "at most",
    "1 item",
    "largest batch",
)


def summary(manifest: manifest_pb2.Manifest) -> str:
    """The table of a version's graphs, and what holds for the version."""
    rows = [_HEADER, *(_row(graph, manifest) for graph in manifest.graphs)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADER))]
    lines = [
        "  " + "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])])
        for row in rows
    ]
    devices = {table.device for graph in manifest.graphs for table in graph.latency_tables}
    lines.append("")
    lines.append(f"  {manifest.family}, preset {manifest.preset}; {_data(manifest)}")
    if devices:
        lines.append(f"  latencies: one thread of {', '.join(sorted(devices))}")
    buckets = ", ".join(str(bucket) for bucket in manifest.batch_buckets)
    delay = manifest.max_queue_delay.ToTimedelta().total_seconds()
    lines.append(f"  batches of {buckets}; queue delay {1000 * delay:g} ms")
    return "\n".join(lines)


def _row(graph: manifest_pb2.Graph, manifest: manifest_pb2.Manifest) -> tuple[str, ...]:
    durations = {
        row.batch_size: row.seconds for table in graph.latency_tables[:1] for row in table.batches
    }
    largest = max(manifest.batch_buckets, default=1)
    return (
        graph.file,
        f"{graph.size_bytes / 1024:.0f}",
        str(graph.opset),
        str(graph.node_count or "-"),
        str(graph.optimized_node_count or "-"),
        graph.precision,
        f"{graph.parity.max_absolute_error:.1e}",
        f"{graph.parity.tolerance:.0e}",
        _milliseconds(durations.get(1)),
        _milliseconds(durations.get(largest)),
    )


def _milliseconds(seconds: float | None) -> str:
    return "-" if seconds is None else f"{1000 * seconds:.3g} ms"


def _data(manifest: manifest_pb2.Manifest) -> str:
    layouts = (manifest.observations, manifest.latents)
    return ", ".join(f"{layout.name} {list(layout.shape[1:])}" for layout in layouts)
