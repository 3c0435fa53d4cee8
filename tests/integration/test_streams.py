"""Streams, over a real socket and both transports."""

import asyncio
import itertools
from collections.abc import Iterator

import grpc
import numpy as np
import pytest
from vae.v1 import vae_service_pb2_grpc
from vae.v1.vae_service_pb2 import SampleRequest, SampleStreamRequest

from scripts.launch import ServiceProcess
from vae_client import AsyncVaeClient, Samples, VaeClient, VaeError
from vae_client.channel import OPTIONS


def joined(chunks: list[Samples]) -> np.ndarray:
    return np.concatenate([chunk.observations for chunk in chunks])


def drawn(service: ServiceProcess) -> float:
    """How many items the service has decoded."""
    return sum(
        float(line.split()[-1])
        for line in service.scrape().splitlines()
        if line.startswith("vae_batch_items_sum") and "decoder" in line
    )


@pytest.mark.parametrize("chunk_items", [0, 1, 7, 100])
def test_a_stream_draws_what_one_call_draws(client: VaeClient, chunk_items: int) -> None:
    chunks = list(client.sample_stream("digits", 100, seed=3, chunk_items=chunk_items))

    whole = client.sample("digits", 100, seed=3).observations
    np.testing.assert_allclose(joined(chunks), whole, atol=1e-6)
    assert len(chunks) == -(-100 // (chunk_items or 64))


def test_a_stream_begins_where_it_is_told(client: VaeClient) -> None:
    chunks = list(client.sample_stream("digits", 30, seed=3, start_index=70, chunk_items=8))

    whole = client.sample("digits", 100, seed=3).observations
    np.testing.assert_allclose(joined(chunks), whole[70:], atol=1e-6)


def test_a_stream_without_a_seed_keeps_the_one_it_picked(client: VaeClient) -> None:
    chunks = list(client.sample_stream("digits", 20, chunk_items=5, include_latents=True))

    again = client.sample("digits", 20, seed=chunks[0].seed, include_latents=True)
    assert len({chunk.seed for chunk in chunks}) == 1
    latents = [chunk.latents for chunk in chunks if chunk.latents is not None]
    np.testing.assert_array_equal(np.concatenate(latents), again.latents)


def test_a_client_that_goes_ends_an_endless_stream(
    service: ServiceProcess, channel: grpc.Channel
) -> None:
    draw = SampleRequest(model="models/digits", sample_count=2**40, seed=1)
    call = vae_service_pb2_grpc.VaeServiceStub(channel).SampleStream(
        SampleStreamRequest(request=draw)
    )
    next(call)
    call.cancel()

    while not any(
        'code="CANCELLED"' in line and "SampleStream" in line
        for line in service.scrape().splitlines()
    ):
        pass  # the test's timeout ends this


def test_a_stream_gets_little_ahead_of_its_reader(
    service: ServiceProcess, client: VaeClient
) -> None:
    """Other answers of the connection would wait behind what nobody reads yet."""
    before, calls = drawn(service), 300
    for _ in itertools.islice(client.sample_stream("digits", 2**30, chunk_items=1), calls):
        client.sample("digits", 1)  # the reader's pause, in which the service could go on

    window = dict(OPTIONS)["grpc.http2.lookahead_bytes"]
    assert isinstance(window, int)
    assert drawn(service) - before < 2 * calls + window / (8 * 8 * 4) + 64


def test_a_slow_reader_does_not_fill_the_memory(
    service: ServiceProcess, channel: grpc.Channel
) -> None:
    """4 GiB of samples are asked for, and only what flow control allows is made."""
    draw = SampleRequest(model="models/digits", sample_count=2**24, seed=1)
    call = vae_service_pb2_grpc.VaeServiceStub(channel).SampleStream(
        SampleStreamRequest(request=draw, chunk_items=4096)
    )
    next(call)

    with VaeClient(service.target) as other:  # others are served meanwhile
        for _ in range(200):
            other.sample("digits", 1)
    items = drawn(service)
    call.cancel()

    assert items < 2**20


def test_batches_are_encoded_and_decoded_in_order(client: VaeClient) -> None:
    random = np.random.default_rng(0)
    observations = random.random((60, 1, 8, 8), np.float32)
    sizes = np.cumsum([1, 5, 1, 2, 20, 1, 1, 9])

    posteriors = list(client.encode_stream("digits", np.split(observations, sizes)))
    means = [posterior.mean for posterior in posteriors]
    decoded = [answer.observations for answer in client.decode_stream("digits", means)]

    assert [len(mean) for mean in means] == [1, 5, 1, 2, 20, 1, 1, 9, 20]
    mean = client.encode("digits", observations).mean
    np.testing.assert_allclose(np.concatenate(means), mean, atol=1e-5)
    expected = client.decode("digits", mean).observations
    np.testing.assert_allclose(np.concatenate(decoded), expected, atol=1e-5)


def test_many_small_requests_of_a_stream_share_batches(
    service: ServiceProcess, client: VaeClient
) -> None:
    count = 500
    latents = np.random.default_rng(0).standard_normal((count, 1, 8))

    answers = list(client.decode_stream("digits", list(latents)))

    expected = client.decode("digits", latents[:, 0]).observations
    received = np.concatenate([answer.observations for answer in answers])
    np.testing.assert_allclose(received, expected, atol=1e-6)


def test_a_bad_request_ends_a_stream_after_the_answers_before_it(client: VaeClient) -> None:
    good, bad = np.zeros((2, 8)), np.zeros((2, 9))

    stream = client.decode_stream("digits", [good, good, bad, good])
    answers = [next(stream), next(stream)]
    with pytest.raises(VaeError) as caught:
        next(stream)

    assert [answer.observations.shape[0] for answer in answers] == [2, 2]
    assert caught.value.code is grpc.StatusCode.INVALID_ARGUMENT
    assert caught.value.field == "latents.shape"


def test_an_empty_stream_gets_no_answers(client: VaeClient) -> None:
    assert list(client.encode_stream("digits", [])) == []


@pytest.mark.parametrize(
    ("count", "chunk", "field"),
    [
        (0, 0, "sample_count"),
        (-1, 0, "sample_count"),
        (5, -1, "chunk_items"),
        (5, 5000, "chunk_items"),
    ],
)
def test_a_bad_stream_is_refused(channel: grpc.Channel, count: int, chunk: int, field: str) -> None:
    request = SampleStreamRequest(
        request=SampleRequest(model="models/digits", sample_count=count), chunk_items=chunk
    )

    with pytest.raises(grpc.RpcError) as caught:
        list(vae_service_pb2_grpc.VaeServiceStub(channel).SampleStream(request, timeout=10))

    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert field in caught.value.details()


def test_the_asyncio_client_streams_too(service: ServiceProcess, client: VaeClient) -> None:
    async def draw() -> tuple[list[Samples], list[np.ndarray]]:
        async with AsyncVaeClient(service.target) as other:
            stream = other.sample_stream("digits", 50, seed=9, chunk_items=20)
            chunks = [chunk async for chunk in stream]
            batches = [chunk.observations for chunk in chunks]
            return chunks, [answer.mean async for answer in other.encode_stream("digits", batches)]

    chunks, means = asyncio.run(draw())

    whole = client.sample("digits", 50, seed=9).observations
    np.testing.assert_allclose(joined(chunks), whole, atol=1e-6)
    assert [len(mean) for mean in means] == [20, 20, 10]


def test_generators_are_read_as_the_answers_come(client: VaeClient) -> None:
    given: list[int] = []

    def batches() -> Iterator[np.ndarray]:
        for index in range(3):
            given.append(index)
            yield np.zeros((1, 8))

    assert len(list(client.decode_stream("digits", batches()))) == 3
    assert given == [0, 1, 2]
