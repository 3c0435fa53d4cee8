"""Many requests, one after the other: none fails, and the memory stays where it was."""

from collections import deque

import grpc
import pytest
from vae.v1.tensor_pb2 import DATA_TYPE_FLOAT32, Tensor
from vae.v1.vae_service_pb2 import DecodeRequest

from scripts.launch import ServiceProcess

pytestmark = [pytest.mark.load, pytest.mark.timeout(900)]
REQUESTS = 200_000
AT_A_TIME = 64
MIB = 2**20


def resident_bytes(service: ServiceProcess) -> int:
    with open(f"/proc/{service.process.pid}/status") as status:
        line = next(line for line in status if line.startswith("VmRSS:"))
    return int(line.split()[1]) * 1024


def test_memory_is_flat_over_many_requests(service: ServiceProcess, channel: grpc.Channel) -> None:
    latents = Tensor(data_type=DATA_TYPE_FLOAT32, shape=[1, 8], data=bytes(32))
    request = DecodeRequest(model="models/digits", latents=latents).SerializeToString()
    decode = channel.unary_unary("/vae.v1.VaeService/Decode")
    running: deque[grpc.Future] = deque()
    sizes: set[int] = set()
    measured: list[int] = []

    for index in range(REQUESTS):
        if len(running) == AT_A_TIME:
            sizes.add(len(running.popleft().result()))
        running.append(decode.future(request, timeout=60))
        if index in (REQUESTS // 10, REQUESTS - 1):
            measured.append(resident_bytes(service))
    sizes |= {len(call.result()) for call in running}

    assert len(sizes) == 1
    assert measured[1] - measured[0] < 16 * MIB
    assert measured[1] < 250 * MIB
