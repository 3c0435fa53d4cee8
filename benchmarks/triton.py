"""The peer: NVIDIA's Triton Inference Server with a model.py that runs the same onnxruntime."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import grpc
import onnxruntime

from benchmarks.errors import BenchmarkError
from benchmarks.messages import READY
from benchmarks.models import MLP, MODELS, BenchModel, decoder_file
from benchmarks.peers import Peers
from benchmarks.servers import Server, call

_SECONDS = 60.0
_TYPES = {"tensor(float)": "TYPE_FP32", "tensor(uint8)": "TYPE_UINT8"}
_MODEL = Path(__file__).parent / "triton_model.py"


@dataclass(frozen=True)
class TritonSettings:
    """What can be set. `threads` are onnxruntime's for each of `instances` processes per model.

    `max_batch_sizes` in items, by model, 64 of one that is not named; `allocation_pool` is
    --grpc-infer-allocation-pool-size, the calls that Triton keeps prepared; `eager_batching`
    collects a batch before an instance is free.
    """

    instances: int = 1
    threads: int = 1
    max_batch_sizes: Mapping[str, int] = field(default_factory=dict)
    allocation_pool: int = 8
    eager_batching: bool = False
    preferred_batch_sizes: tuple[int, ...] = ()

    def max_batch_size(self, model: BenchModel) -> int:
        """In items."""
        return self.max_batch_sizes.get(model.name, 64)


def variants(threads: int) -> dict[str, TritonSettings]:
    """The settings that are measured, by the server's name: as many threads as the service has, and
    twice as many, the faster ones by `python -m benchmarks tune` where a core is free. A larger
    pool of prepared calls than Triton's 8 helped many callers, and batches of 256 the MLP (and not
    the convolutions); its other knobs did not."""
    same = TritonSettings(threads=threads, allocation_pool=64, max_batch_sizes={MLP.name: 256})
    return {"triton": same, "triton, 2 instances": replace(same, instances=2)}


@contextlib.contextmanager
def running_triton(
    peers: Peers, repository: Path, settings: TritonSettings, name: str = "triton"
) -> Iterator[Server]:
    """Triton serving the decoders of `repository`, as mlp.decoder for example, ready.

    Ends the process with the block. Raises BenchmarkError with the end of its log if it does not
    start.
    """
    with tempfile.TemporaryDirectory(prefix="triton-") as temporary:
        folder = Path(temporary)
        for model in (each for each in MODELS if decoder_file(repository, each).exists()):
            _write_model(folder / "models", repository, model, settings)
        started = time.perf_counter()
        port = _free_port()
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(  # noqa: S603 - the peer that was just installed
                _command(peers, folder / "models", port, settings),
                env=os.environ | _environment(peers),
                stdout=log,
                stderr=log,
            )
        try:
            target = f"127.0.0.1:{port}"
            _wait_until_ready(process, target, folder / "log")
            yield Server(name, target, process.pid, time.perf_counter() - started)
        finally:
            _stop(process)


def _command(peers: Peers, models: Path, port: int, settings: TritonSettings) -> list[str]:
    options = {
        "model-repository": models,
        "backend-directory": peers.backends,
        "grpc-address": "127.0.0.1",
        "grpc-port": port,
        "grpc-infer-allocation-pool-size": settings.allocation_pool,
        "allow-http": "false",
        "allow-metrics": "false",
    }
    command = [str(peers.tritonserver), "--disable-auto-complete-config"]
    for option, value in options.items():
        command += [f"--{option}", str(value)]
    return command


def _environment(peers: Peers) -> dict[str, str]:
    return {
        "LD_LIBRARY_PATH": peers.triton_libraries,
        "TRITON_SITE_PACKAGES": str(peers.site_packages),
    }


def _write_model(
    models: Path, repository: Path, model: BenchModel, settings: TritonSettings
) -> None:
    folder = models / model.decoder
    (folder / "1").mkdir(parents=True)
    shutil.copy(_MODEL, folder / "1" / "model.py")
    graph = decoder_file(repository, model).resolve()
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    # As the service's `decoder`: perf_analyzer asks for every output that a server declares.
    outputs = {
        value.name: str(value.type)
        for value in session.get_outputs()
        if value.name == "observations"
    }
    (folder / "config.pbtxt").write_text(config_text(model, graph, outputs, settings))


def config_text(
    model: BenchModel, graph: Path, outputs: Mapping[str, str], settings: TritonSettings
) -> str:
    """Triton's config.pbtxt of a decoder; the delay of its dynamic batcher is 0.

    `outputs` has onnxruntime's type of each output, for example "tensor(float)".
    """
    preferred = ", ".join(map(str, settings.preferred_batch_sizes))
    shape = ", ".join(map(str, model.observation_shape))
    listed = ", ".join(
        f'{{ name: "{name}", data_type: {_TYPES[kind]}, dims: [{shape}] }}'
        for name, kind in outputs.items()
    )
    return f"""name: "{model.decoder}"
backend: "python"
max_batch_size: {settings.max_batch_size(model)}
input [{{ name: "latents", data_type: TYPE_FP32, dims: [{model.latent_size}] }}]
output [{listed}]
dynamic_batching {{ preferred_batch_size: [{preferred}], max_queue_delay_microseconds: 0 }}
optimization {{ eager_batching: {str(settings.eager_batching).lower()} }}
instance_group [{{ kind: KIND_CPU, count: {settings.instances} }}]
parameters {{ key: "graph", value: {{ string_value: "{graph}" }} }}
parameters {{ key: "threads", value: {{ string_value: "{settings.threads}" }} }}
"""


def _wait_until_ready(process: "subprocess.Popen[bytes]", target: str, log: Path) -> None:
    deadline = time.monotonic() + _SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(grpc.RpcError):
            if call(target, READY, b"", seconds=1) == b"\x08\x01":  # ready: true
                return
        time.sleep(0.01)
    end = "\n".join(log.read_text(errors="replace").splitlines()[-20:])
    raise BenchmarkError(f"Triton did not become ready; the end of its log:\n{end}")


def _stop(process: "subprocess.Popen[bytes]") -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])
