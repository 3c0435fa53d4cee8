"""Models and calls that do not wait for each other's work."""

import contextlib
import struct
import zlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import grpc
import numpy as np
import pytest
from vae.v1.tensor_pb2 import DATA_TYPE_FLOAT32, Tensor
from vae.v1.vae_service_pb2 import (
    OBSERVATION_ENCODING_PNG,
    OBSERVATION_ENCODING_UINT8,
    DecodeRequest,
    EncodeRequest,
    SampleRequest,
)
from vae.v1.vae_service_pb2_grpc import VaeServiceStub

from scripts.launch import ServiceProcess, running_service
from service.images import to_png
from service.transport.http2 import frames
from tests.integration.publications import publish
from tests.integration.scraped import metric
from tests.integration.waiting import wait_until
from tests.service.transport.raw_client import RawClient, data, pieces

StartService = Callable[..., AbstractContextManager[ServiceProcess]]
FLOOD, ITEMS = 30, 4096
NOTES = 100  # empty chunks after a file's header: reading takes a second for all files
WRITTEN = 2000  # items whose latents fit into the first window of HTTP/2
TRIES = 20  # a small call can lose its race against a large one, on a busy machine


def tensor(array: np.ndarray) -> Tensor:
    return Tensor(data_type=DATA_TYPE_FLOAT32, shape=array.shape, data=array.tobytes())


@pytest.fixture
def models(digits_repository: Path, tmp_path: Path) -> Path:
    """A repository with the models "digits" and "other"."""
    for name in ("digits", "other"):
        publish(digits_repository, tmp_path, 1, name=name)
    return tmp_path


@pytest.mark.parametrize("delay", ["0", "1"], ids=["on the reading thread", "on threads"])
def test_a_model_does_not_wait_for_the_queue_of_another(
    start_service: StartService, models: Path, delay: str
) -> None:
    queue = ("--max-queue-items", str(2 * FLOOD * ITEMS), "--max-queue-delay-ms", delay)
    with (
        start_service("--repository", str(models), *queue) as service,
        grpc.insecure_channel(service.target) as flooding,
        grpc.insecure_channel(service.target, [("grpc.use_local_subchannel_pool", 1)]) as channel,
    ):
        service.wait_for("ready")
        many = DecodeRequest(model="models/digits", latents=tensor(np.zeros((ITEMS, 8), "<f4")))
        flood: list[grpc.Future] = []

        def flooded() -> bool:
            if all(call.done() for call in flood):
                flood.extend(
                    VaeServiceStub(flooding).Decode.future(many, timeout=60) for _ in range(FLOOD)
                )
            return metric(service, "vae_queue_items", model="digits") > 0

        wait_until(flooded)
        one = SampleRequest(model="models/other", sample_count=1, seed=1)
        answer = VaeServiceStub(channel).Sample(one, timeout=60)
        unanswered = sum(not call.done() for call in flood)
        for call in flood:
            assert len(call.result().observations.data) == ITEMS * 256

    assert answer.model == "models/other/versions/1"
    assert unanswered > 0


def begin_decode(client: RawClient, stream: int, request: DecodeRequest) -> None:
    content = request.SerializeToString()
    head = client.headers(stream, "", pseudo_path="/vae.v1.VaeService/Decode")
    parts = pieces(struct.pack(">BI", 0, len(content)) + content, 2**14)  # frames' first limit
    client.send(head, *(data(stream, part, 0) for part in parts), data(stream, b""))


def test_a_call_is_answered_while_files_of_another_are_written(
    start_service: StartService,
) -> None:
    """Its answer begins first. That it ends first would say nothing: it is the shorter one."""
    many = DecodeRequest(model="models/digits", latents=tensor(np.zeros((WRITTEN, 8), "<f4")))
    many.observation_encoding = OBSERVATION_ENCODING_PNG
    # By the graph that files are written from, which may run on a thread of its own.
    one = DecodeRequest(model="models/digits", latents=tensor(np.zeros((1, 8), "<f4")))
    one.observation_encoding = OBSERVATION_ENCODING_UINT8
    with start_service() as service:

        def decoded() -> float:
            return metric(service, "vae_batch_items_sum", graph="decoder_uint8")

        def overtakes() -> bool:
            before = decoded()
            client = RawClient(int(service.target.rpartition(":")[2]), {})
            with contextlib.closing(client):
                begin_decode(client, 1, many)
                wait_until(lambda: decoded() == before + WRITTEN)  # what is left are the files
                begin_decode(client, 3, one)
                return client.until(lambda frame: frame.kind == frames.HEADERS).stream == 3

        assert any(overtakes() for _ in range(TRIES))


def test_a_call_is_answered_while_files_of_another_are_read(digits_repository: Path) -> None:
    """Of the other no item has run by then. What has arrived only the transport http2 tells."""
    many = EncodeRequest(model="models/digits")
    [file] = to_png(np.zeros((1, 1, 8, 8), np.uint8))
    note = bytes(4) + b"noTe" + zlib.crc32(b"noTe").to_bytes(4, "big")
    many.images.extend(ITEMS * [file[:33] + NOTES * note + file[33:]])
    with (
        running_service(digits_repository) as service,
        grpc.insecure_channel(service.target) as channel,
        grpc.insecure_channel(service.target, [("grpc.use_local_subchannel_pool", 1)]) as other,
    ):

        def encoded() -> float:
            return metric(service, "vae_batch_items_sum", graph="encoder_uint8")

        def overtakes() -> bool:
            before = encoded()
            call = VaeServiceStub(channel).Encode.future(many, timeout=60)
            size = many.ByteSize()  # where a scrape is slow it may see nothing of it
            wait_until(lambda: call.done() or metric(service, "vae_held_bytes") >= size)
            one = DecodeRequest(model="models/digits", latents=tensor(np.zeros((1, 8), "<f4")))
            VaeServiceStub(other).Decode(one, timeout=60)
            overtook = encoded() == before
            assert call.result().mean.shape[0] == ITEMS
            return overtook

        assert any(overtakes() for _ in range(TRIES))
