"""Runs of a session on buffers that stay where they are: I/O binding, and CUDA graphs.

For a plain run onnxruntime allocates inputs and outputs on the device and launches the graph's
kernels one by one. Here every batch size (bucket) has its buffers on the device, allocated once: a
batch is copied in, and its outputs are copied out. With capture the first runs of a bucket record
its kernels as a CUDA graph, and all others launch them at once. Large answers come in pinned memory
(`service.pinned`).

What onnxruntime asks for, and what follows:
- A CUDA graph belongs to the thread that captured it, so one thread runs a session.
- It holds addresses, of the buffers and of memory that the session's arena gave and took back. So
  buffers never move, and sessions never share an arena: it would give that memory to the other one.
- Nobody else may use the device during a capture: see `service.device_gate`.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from service.device_gate import DeviceGate
from service.pinned import Answers, Runtime
from service.waiting import Arrays

_REGULAR_RUNS = 2  # that allocate, and choose kernels
_CAPTURING_RUNS = 4  # onnxruntime captures after two with the graph's number; the last one replays
_PINNED_BYTES = 2**19  # of a batch's answers; from there on it is quicker (docs/performance.md)
_NO_GRAPH = -1  # "gpu_graph_id" of a run that captures and replays nothing


@dataclass(frozen=True)
class _Bucket:
    """What runs one batch size. inputs: buffers by name, and what they take. answers: of every
    output, its buffer and what copies it into pinned memory; None where it goes elsewhere."""

    inputs: Mapping[str, tuple[ort.OrtValue, tuple[int, ...], np.dtype[np.generic]]]
    outputs: tuple[str, ...]
    answers: Mapping[str, tuple[ort.OrtValue, Answers]] | None
    binding: ort.IOBinding
    options: ort.RunOptions

    def fill(self, inputs: Arrays) -> None:
        """Copies a batch into the buffers. Raises ValueError for another shape or dtype."""
        for name, (buffer, shape, dtype) in self.inputs.items():
            array = inputs[name]
            if array.shape != shape or array.dtype != dtype:  # update_inplace would copy its bytes
                raise ValueError(
                    f"{name}: expected {dtype} of {shape}, not {array.dtype} of {array.shape}"
                )
            buffer.update_inplace(array)
        # The session's stream does not wait for the one that copies.
        self.binding.synchronize_inputs()

    def read(self) -> Arrays:
        """The outputs, copied: the next batch overwrites the buffers."""
        if self.answers is None:
            return dict(zip(self.outputs, self.binding.copy_outputs_to_cpu(), strict=True))
        return {
            name: answers.read(buffer.data_ptr())
            for name, (buffer, answers) in self.answers.items()
        }


class BoundRuns:
    """Bound runs of one session, on a thread of their own."""

    def __init__(
        self,
        session: ort.InferenceSession,
        device: str,
        gate: DeviceGate,
        *,
        capture: bool,
        runtime: Runtime | None = None,
    ) -> None:
        """device: "cuda" or "cpu", where the buffers are. capture: whether to make CUDA graphs.

        runtime: what copies large answers into pinned memory; without it there is none.
        """
        self._session = session
        self._device = device
        self._gate = gate
        self._capture = capture
        self._runtime = runtime
        self._graph_ids = itertools.count(1)  # 0 is onnxruntime's own
        self._buckets: dict[tuple[tuple[str, ...], int], _Bucket] = {}
        self._runner = ThreadPoolExecutor(1, "bound-runs")  # ends with this object

    def __del__(self) -> None:
        with self._gate.shared():  # the last reference frees memory of the device
            self._buckets.clear()
            del self._session

    def bind(self, examples: Sequence[tuple[Arrays, Arrays]]) -> Callable[[Arrays], Arrays]:
        """A run of the outputs that the examples have, for batches of their sizes alone.

        examples: inputs and outputs of a batch of each size, arrays [batch, ...] by name. The run
        may be called by several threads, which take turns. It raises ValueError for a batch that is
        like no example, and whatever onnxruntime raises.
        """
        outputs = tuple(examples[0][1])
        for inputs, expected in examples:
            bucket = self._runner.submit(self._allocate, inputs, expected).result()
            self._buckets[outputs, _items(inputs)] = bucket
        return partial(self._run, outputs)

    def _run(self, outputs: tuple[str, ...], inputs: Arrays) -> Arrays:
        bucket = self._buckets.get((outputs, _items(inputs)))
        if bucket is None:
            raise ValueError(f"expected a batch of a bound size, not of {_items(inputs)} items")
        return self._runner.submit(self._run_bucket, bucket, inputs).result()

    def _allocate(self, inputs: Arrays, outputs: Arrays) -> _Bucket:
        """Buffers for a batch like this one, run until the graph is captured."""
        with self._gate.shared():
            binding = self._session.io_binding()
            buffers = {}
            for name, array in inputs.items():
                buffers[name] = (self._buffer(array), array.shape, array.dtype)
                binding.bind_ortvalue_input(name, buffers[name][0])
            results = {name: self._buffer(array) for name, array in outputs.items()}
            for name, buffer in results.items():
                binding.bind_ortvalue_output(name, buffer)
            answers = None
            size = sum(array.nbytes for array in outputs.values())
            if self._runtime is not None and size >= _PINNED_BYTES:
                answers = {
                    name: (results[name], Answers(self._runtime, self._gate, array))
                    for name, array in outputs.items()
                }
            graph_id = next(self._graph_ids) if self._capture else _NO_GRAPH
            options = _run_options(graph_id)
            bucket = _Bucket(buffers, tuple(outputs), answers, binding, options)
            bucket.fill(inputs)
            for _ in range(_REGULAR_RUNS):
                self._session.run_with_iobinding(binding, _run_options(_NO_GRAPH))
        if self._capture:
            with self._gate.alone():
                for _ in range(_CAPTURING_RUNS):
                    self._session.run_with_iobinding(binding, bucket.options)
        return bucket

    def _run_bucket(self, bucket: _Bucket, inputs: Arrays) -> Arrays:
        with self._gate.shared():
            bucket.fill(inputs)
            self._session.run_with_iobinding(bucket.binding, bucket.options)
            return bucket.read()

    def _buffer(self, like: NDArray[np.generic]) -> ort.OrtValue:
        shape = list(like.shape)
        return ort.OrtValue.ortvalue_from_shape_and_type(shape, like.dtype, self._device, 0)


def _items(inputs: Arrays) -> int:
    return len(next(iter(inputs.values())))


def _run_options(graph_id: int) -> ort.RunOptions:
    options = ort.RunOptions()
    options.add_run_config_entry("gpu_graph_id", str(graph_id))
    return options
