"""onnxruntime: providers, options, plain runs. Only this module and `service.bound` import it."""

import copy
import os
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from service.bound import BoundRuns
from service.device_gate import DeviceGate
from service.pinned import cuda_runtime

Provider = Literal["auto", "cpu", "cuda"]
CudaRuns = Literal["captured", "bound", "plain"]
CUDA = "CUDAExecutionProvider"
CPU = "CPUExecutionProvider"
_CUDA_OPTIONS = {
    "cudnn_conv_algo_search": "HEURISTIC",
    "arena_extend_strategy": "kSameAsRequested",  # else it doubles, and keeps what it has
}


class ProviderError(RuntimeError):
    """The execution provider that was asked for cannot be had."""


class GraphError(RuntimeError):
    """onnxruntime cannot load a graph."""


@dataclass(frozen=True)
class SessionOptions:
    """provider: one of onnxruntime's names. threads: threads of one session on the CPU.

    cuda_runs: the fastest way to try. cpus: that this process may count on. gate: of the device,
    one for all sessions of the process.
    """

    provider: str
    threads: int
    cuda_runs: CudaRuns = "captured"
    cpus: int = 1
    gate: DeviceGate = field(default_factory=DeviceGate, compare=False, repr=False)


def choose_provider(provider: Provider) -> str:
    """onnxruntime's name of the provider; auto takes CUDA where it is installed and has a device.

    Raises ProviderError when CUDA is asked for and this onnxruntime has none.
    """
    available = CUDA in ort.get_available_providers()
    if provider == "cuda" and not available:
        raise ProviderError(
            "CUDA was asked for, but the installed onnxruntime has no CUDAExecutionProvider: "
            "install the extra `service-gpu` instead of `service`"
        )
    if provider == "cpu" or not available:
        return CPU
    if provider == "auto" and not os.path.exists("/dev/nvidiactl"):
        return CPU
    return CUDA


def check_precision(precision: str, provider: str) -> None:
    """Raises ProviderError if graphs of that precision are not for the provider."""
    meant = {"float16": CUDA, "int8": CPU}.get(precision, provider)
    if provider != meant:
        raise ProviderError(f"precision {precision} is for {meant}, and this is {provider}")


class Session:
    """One graph, loaded. Safe to run from several threads."""

    def __init__(
        self,
        graph: bytes,
        outputs: Sequence[str],
        options: SessionOptions,
        *,
        capture: bool = False,
        cpu_nodes: bool = False,
    ) -> None:
        """Loads graph, the bytes of an ONNX file. capture: its bound runs become CUDA graphs.

        cpu_nodes: lets CUDA leave nodes that it does not know to the CPU. Raises ProviderError
        when the provider does not come up, as nothing falls back in silence, and GraphError when
        onnxruntime refuses the graph.
        """
        self._options, self._capture = options, capture
        ort.disable_telemetry_events()  # which would also write an identity of the device
        settings = ort.SessionOptions()
        settings.intra_op_num_threads = options.threads
        settings.inter_op_num_threads = 1
        settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
        settings.log_severity_level = 4  # it raises errors too, and its lines are not of our log
        providers: list[str | tuple[str, dict[str, str]]] = [CPU]
        if options.provider == CUDA:
            if not cpu_nodes:
                settings.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
            settings.enable_mem_pattern = False  # one more block of memory for every bucket
            providers = [(CUDA, _CUDA_OPTIONS | ({"enable_cuda_graph": "1"} if capture else {}))]
            ort.preload_dlls()
        try:
            with self._entered():
                self._session = ort.InferenceSession(
                    graph, settings, providers=providers, enable_fallback=0
                )
        except Exception as error:  # onnxruntime's errors have no class in common
            raise GraphError(f"{options.provider} cannot load the graph: {error}") from error
        # For a fallback alone it would keep the file as well, which is the weights once more.
        self._session._model_bytes = None
        self.provider: str = self._session.get_providers()[0]
        if self.provider != options.provider:
            raise ProviderError(f"{options.provider} was asked for, {self.provider} came up")
        self._outputs = list(outputs)

    def __del__(self) -> None:
        with self._entered():  # the last reference frees memory of the device
            self.__dict__.pop("_session", None)  # there is none if it could not be loaded

    def giving(self, outputs: Sequence[str]) -> "Session":
        """The same loaded graph, giving these outputs."""
        other = copy.copy(self)
        other._outputs = list(outputs)
        return other

    def bound(self, *, pinned: bool = True) -> BoundRuns:
        """Runs of the same loaded graph on buffers that stay where they are.

        pinned: whether large answers of a device come in pinned memory.
        """
        device, runtime = "cpu", None
        if self.provider == CUDA:
            device, runtime = "cuda", cuda_runtime() if pinned else None
        gate = self._options.gate
        return BoundRuns(self._session, device, gate, capture=self._capture, runtime=runtime)

    def run(self, inputs: Mapping[str, NDArray[np.generic]]) -> dict[str, NDArray[np.generic]]:
        """Runs the graph on arrays [batch, ...] by input name; releases the GIL meanwhile."""
        with self._entered():
            values = self._session.run(self._outputs, dict(inputs))
        return dict(zip(self._outputs, values, strict=True))

    def _entered(self) -> AbstractContextManager[None]:
        return self._options.gate.shared() if self._options.provider == CUDA else nullcontext()
