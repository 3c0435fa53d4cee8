"""Goal 5: items for each CPU second of the service, through streams and through one-item calls."""

import datetime
import json
import math
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import grpc
from vae.v1.tensor_pb2 import DATA_TYPE_FLOAT32, Tensor
from vae.v1.vae_service_pb2 import (
    DecodeRequest,
    DecodeStreamRequest,
    EncodeRequest,
    EncodeStreamRequest,
    SampleRequest,
    SampleStreamRequest,
)
from vae.v1.vae_service_pb2_grpc import VaeServiceStub

from benchmarks.machine import describe_commit, describe_machine
from benchmarks.models import MLP, build_repository
from benchmarks.processes import cpu_seconds
from benchmarks.runner import new_path
from benchmarks.servers import running

_MODEL = f"models/{MLP.name}"
_CHUNK = 64
_AT_A_TIME = 64  # one-item calls in flight


@dataclass(frozen=True)
class Cost:
    """Items that the service gave for each second of its CPU time."""

    rpc: str
    unary: float
    stream: float


def measure(folder: Path, seconds: float, say: Callable[[str], None]) -> Path:
    """Measures each way for so many seconds; prints what it saw and writes it into folder."""
    costs = _measure(seconds)
    say(render(costs))
    results = {
        "model": MLP.name,
        "items/CPU s": [asdict(cost) for cost in costs],
        "machine": describe_machine(),
        **describe_commit(),
    }
    path = new_path(folder, f"{datetime.datetime.now(datetime.UTC).date()}-streams")
    path.write_text(json.dumps(results, indent=1) + "\n")
    return path


def _measure(seconds: float) -> list[Cost]:
    """Sample, Encode and Decode of the MLP, each way for so many seconds."""
    with TemporaryDirectory() as folder:
        build_repository(Path(folder))
        with (
            running(Path(folder), ["--threads", "1"]) as server,
            grpc.insecure_channel(server.target) as channel,
        ):
            stub = VaeServiceStub(channel)

            def rate(items: Iterator[int]) -> float:
                """Items for each CPU second."""
                next(items)  # the first answer is not counted, nor what came before it
                started, end, count = cpu_seconds([server.pid]), time.monotonic() + seconds, 0
                for some in items:
                    count += some
                    if time.monotonic() > end:
                        break
                return count / (cpu_seconds([server.pid]) - started)

            return [
                Cost("Sample", rate(_unary(stub.Sample, _sample(1))), rate(_sampled(stub))),
                Cost("Encode", rate(_unary(stub.Encode, _encode(1))), rate(_encoded(stub))),
                Cost("Decode", rate(_unary(stub.Decode, _decode(1))), rate(_decoded(stub))),
            ]


def render(costs: list[Cost]) -> str:
    """A line for each RPC."""
    return "\n".join(
        f"{cost.rpc}: {cost.unary:,.0f} items/CPU s in one-item calls, {cost.stream:,.0f} in a "
        f"stream, {cost.stream / cost.unary:.1f} times"
        for cost in costs
    )


def _unary(method: "Callable[..., object]", request: object) -> Iterator[int]:
    future = method.future  # type: ignore[attr-defined]  # of every unary method of a stub
    running_calls = deque(future(request, timeout=60) for _ in range(_AT_A_TIME))
    while True:
        running_calls.popleft().result()
        yield 1
        running_calls.append(future(request, timeout=60))


def _sampled(stub: VaeServiceStub) -> Iterator[int]:
    request = SampleStreamRequest(request=_sample(2**40))
    stream = stub.SampleStream(request, timeout=600)
    for answer in stream:
        yield answer.response.observations.shape[0]


def _encoded(stub: VaeServiceStub) -> Iterator[int]:
    requests = iter(lambda: EncodeStreamRequest(request=_encode(_CHUNK)), None)
    for answer in stub.EncodeStream(requests, timeout=600):
        yield answer.response.mean.shape[0]


def _decoded(stub: VaeServiceStub) -> Iterator[int]:
    requests = iter(lambda: DecodeStreamRequest(request=_decode(_CHUNK)), None)
    for answer in stub.DecodeStream(requests, timeout=600):
        yield answer.response.observations.shape[0]


def _sample(count: int) -> SampleRequest:
    return SampleRequest(model=_MODEL, sample_count=count, seed=1)


def _encode(items: int) -> EncodeRequest:
    return EncodeRequest(model=_MODEL, observations=_zeros((items, *MLP.observation_shape)))


def _decode(items: int) -> DecodeRequest:
    return DecodeRequest(model=_MODEL, latents=_zeros((items, MLP.latent_size)))


def _zeros(shape: tuple[int, ...]) -> Tensor:
    return Tensor(data_type=DATA_TYPE_FLOAT32, shape=shape, data=bytes(4 * math.prod(shape)))
