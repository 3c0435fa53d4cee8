"""What the Open Inference Protocol and Triton's clients ask about a served graph."""

from typing import Final

from inference import inference_service_pb2 as pb
from inference import model_config_pb2 as config_pb
from inference import model_statistics_pb2 as statistics_pb

from service.inference_graph import ServedGraph
from service.inference_tensors import type_of
from service.repository import Spec
from service.statistics import GraphStatistics

# The same format has another name in each of the two.
_PLATFORM: Final = "onnx_onnxv1"
_TRITON_PLATFORM: Final = "onnxruntime_onnx"
_BACKEND: Final = "onnxruntime"


def metadata_of(graph: ServedGraph, versions: list[str]) -> pb.ModelMetadataResponse:
    """The graph's tensors; versions: all that are served."""
    return pb.ModelMetadataResponse(
        name=graph.name,
        versions=versions,
        platform=_PLATFORM,
        inputs=[_tensor(reader.spec) for reader in graph.inputs.values()],
        outputs=[_tensor(spec) for spec in graph.outputs.values()],
    )


def _tensor(spec: Spec) -> pb.ModelMetadataResponse.TensorMetadata:
    return pb.ModelMetadataResponse.TensorMetadata(
        name=spec.name, datatype=type_of(spec).name, shape=(-1, *spec.shape)
    )


def config_of(graph: ServedGraph) -> config_pb.ModelConfig:
    """Triton's description of the graph; its shapes are without the item axis."""
    batching = graph.model.batchers[graph.kind].options
    precision = graph.model.version.graphs[graph.kind].precision
    return config_pb.ModelConfig(
        name=graph.name,
        platform=_TRITON_PLATFORM,
        backend=_BACKEND,
        max_batch_size=batching.max_batch_size,
        input=[
            config_pb.ModelInput(
                name=name,
                data_type=reader.type.config,
                dims=reader.spec.shape,
                optional=name in graph.optional,
            )
            for name, reader in graph.inputs.items()
        ],
        output=[
            config_pb.ModelOutput(name=name, data_type=type_of(spec).config, dims=spec.shape)
            for name, spec in graph.outputs.items()
        ],
        dynamic_batching=config_pb.ModelDynamicBatching(
            preferred_batch_size=batching.buckets,
            max_queue_delay_microseconds=round(batching.max_queue_delay * 1e6),
            priority_levels=batching.priority_levels,
            default_priority_level=batching.level(0),
        ),
        parameters={"precision": config_pb.ModelParameter(string_value=precision)},
    )


def statistics_of(graph: ServedGraph, statistics: GraphStatistics) -> statistics_pb.ModelStatistics:
    """Triton's counters of the graph."""
    counts = statistics.snapshot()
    delays, queue_seconds = statistics.queue_delays.snapshot()
    failed = counts.failed + counts.cancelled + sum(counts.rejected.values())
    return statistics_pb.ModelStatistics(
        name=graph.name,
        version=graph.version,
        last_inference=round(counts.last_batch * 1000),
        inference_count=sum(items * batches for items, (batches, _) in counts.batches.items()),
        execution_count=sum(batches for batches, _ in counts.batches.values()),
        inference_stats=statistics_pb.InferStatistics(
            success=_duration(counts.requests, queue_seconds + counts.request_seconds),
            fail=_duration(failed, 0.0),
            queue=_duration(int(delays[-1][1]), queue_seconds),
            compute_input=_duration(counts.requests, 0.0),
            compute_infer=_duration(counts.requests, counts.request_seconds),
            compute_output=_duration(counts.requests, 0.0),
        ),
        batch_stats=[
            statistics_pb.InferBatchStatistics(
                batch_size=items,
                compute_input=_duration(batches, 0.0),
                compute_infer=_duration(batches, seconds),
                compute_output=_duration(batches, 0.0),
            )
            for items, (batches, seconds) in counts.batches.items()
        ],
    )


def _duration(count: int, seconds: float) -> statistics_pb.StatisticDuration:
    return statistics_pb.StatisticDuration(count=count, ns=round(seconds * 1e9))
