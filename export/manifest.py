"""The manifest: everything that the service knows about a model version."""

import hashlib
import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version as package_version

from google.protobuf.json_format import MessageToJson
from google.protobuf.timestamp_pb2 import Timestamp
from vae.manifest.v1 import manifest_pb2
from vae.v1 import tensor_pb2

from export.checks import opset
from export.graphs import Graph, Value
from export.parity import BATCH_SIZES, ElboParity, Parity
from training.checkpoint import Run
from training.model import Hierarchical, Model, Quantized

FORMAT_VERSION = 1
BATCH_BUCKETS = (1, 2, 4, 8, 16, 32, 64)
_TOOLS = ("torch", "onnx", "onnxscript", "onnxruntime")


def build_manifest(
    run: Run,
    graphs: tuple[Graph, ...],
    parity: Mapping[str, Parity],
    name: str,
    version: int,
    *,
    label_names: Sequence[str] = (),
    elbo: ElboParity | None = None,
    elbo_percentiles: Sequence[float] = (),
) -> manifest_pb2.Manifest:
    """Describe version `version` of model `name`, made from `run` now.

    `label_names` are those of the data set, `elbo` is what the scorer gave for test items, and
    `elbo_percentiles` for those of training. Versions of one name made from the same weights share
    their latent space.
    """
    model = run.model
    created = Timestamp()
    created.FromDatetime(datetime.now(UTC).replace(microsecond=0))
    return manifest_pb2.Manifest(
        format_version=FORMAT_VERSION,
        name=name,
        version=version,
        family=run.config.model.family,
        preset=run.config.preset,
        latent_space=f"{name}-{run.weights_sha256[:16]}",
        checkpoint_sha256=run.weights_sha256,
        create_time=created,
        observations=_spec(Value("observations", tuple(model.observation_shape))),
        value_range=_value_range(graphs),
        latents=_spec(next(value for value in graphs[0].outputs if value.name == "latents")),
        latent_groups=_groups(model),
        elbo_percentiles=elbo_percentiles,
        code_count=model.code_count if isinstance(model, Quantized) else 0,
        labels=[] if model.label_count is None else label_names,
        likelihood=model.likelihood_name,
        prior="standard_normal" if model.standard_prior else "graph",
        batch_buckets=BATCH_BUCKETS,
        graphs=[describe_graph(graph, parity[graph.kind], elbo) for graph in graphs],
        training_metrics={
            metric: float(value) for metric, value in run.metrics.items() if value is not None
        },
        tool_versions={tool: package_version(tool) for tool in _TOOLS},
    )


def manifest_json(manifest: manifest_pb2.Manifest) -> bytes:
    """Canonical proto-JSON with a trailing newline: `google.protobuf.json_format.Parse` reads it.

    Its names are lowerCamelCase and its 64-bit integers are strings.
    """
    return (MessageToJson(manifest, ensure_ascii=False) + "\n").encode()


def _value_range(graphs: tuple[Graph, ...]) -> tensor_pb2.ValueRange:
    """[0, 1] of pixels, which alone come as uint8; else any number."""
    if any(graph.kind == "encoder_uint8" for graph in graphs):
        return tensor_pb2.ValueRange(minimum=0.0, maximum=1.0)
    return tensor_pb2.ValueRange(minimum=-math.inf, maximum=math.inf)


def _groups(model: Model) -> list[manifest_pb2.LatentGroup]:
    if isinstance(model, Hierarchical):
        return [
            manifest_pb2.LatentGroup(name=group.name, shape=group.shape) for group in model.groups
        ]
    return [manifest_pb2.LatentGroup(name="latents", shape=model.latent_shape)]


def describe_graph(graph: Graph, parity: Parity, elbo: ElboParity | None) -> manifest_pb2.Graph:
    """A graph and its file; `elbo` is what the scorer of its precision gave."""
    return manifest_pb2.Graph(
        kind=manifest_pb2.GraphKind.Value(f"GRAPH_KIND_{graph.kind.upper()}"),
        file=graph.file,
        sha256=hashlib.sha256(graph.content).hexdigest(),
        size_bytes=len(graph.content),
        inputs=[_spec(value) for value in graph.inputs],
        outputs=[_spec(value) for value in graph.outputs],
        opset=opset(graph.content),
        precision=graph.precision,
        parity=manifest_pb2.Parity(
            max_absolute_error=parity.max_absolute_error,
            tolerance=parity.tolerance,
            batch_sizes=BATCH_SIZES,
            different_codes=parity.different_codes,
            different_codes_tolerance=parity.different_codes_tolerance,
        ),
        end_metric=_end_metric(elbo) if elbo and graph.kind == "scorer" else None,
    )


def _end_metric(elbo: ElboParity) -> manifest_pb2.EndMetric:
    return manifest_pb2.EndMetric(
        name="elbo",
        value=elbo.onnxruntime,
        reference=elbo.torch,
        bound=elbo.tolerance,
        items=elbo.items,
    )


def _spec(value: Value) -> tensor_pb2.TensorSpec:
    """-1 stands for the item axis."""
    return tensor_pb2.TensorSpec(
        name=value.name,
        data_type=tensor_pb2.DataType.Value(f"DATA_TYPE_{value.data_type.upper()}"),
        shape=[-1, *value.shape],
    )
