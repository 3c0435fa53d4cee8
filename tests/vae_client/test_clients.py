"""Both clients, against a service that fails as it is told."""

import asyncio
import inspect
import threading
from collections.abc import Callable
from typing import Any

import grpc
import numpy as np
import pytest

from vae_client import AsyncVaeClient, Samples, VaeClient, VaeError
from vae_client.channel import DEFAULT_STREAM_TIMEOUT, DEFAULT_TIMEOUT

Start = Callable[..., Any]
FULL, UNAVAILABLE = grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNAVAILABLE
ROUNDED_UP = 1.1  # by grpcio, a deadline on the wire
METHODS = ["sample", "encode", "decode", "sample_stream", "encode_stream", "decode_stream"]
METHODS += ["reconstruct", "interpolate", "traverse", "score", "model", "models"]


def blocking(target: str, method: str, *arguments: Any, **options: Any) -> Any:
    with VaeClient(target) as client:
        answer = getattr(client, method)(*arguments, **options)
        return list(answer) if method.endswith("stream") else answer


def on_a_loop(target: str, method: str, *arguments: Any, **options: Any) -> Any:
    async def run() -> Any:
        async with AsyncVaeClient(target) as client:
            answer = getattr(client, method)(*arguments, **options)
            if method.endswith("stream"):
                return [part async for part in answer]
            return await answer

    return asyncio.run(run())


@pytest.fixture(params=[blocking, on_a_loop])
def call(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.mark.parametrize("name", METHODS)
def test_both_clients_take_the_same_arguments(name: str) -> None:
    method = inspect.signature(getattr(VaeClient, name))

    assert method == inspect.signature(getattr(AsyncVaeClient, name))
    names = list(method.parameters)
    assert (names[0], names[-1]) == ("self", "timeout")
    assert getattr(VaeClient, name).__doc__


def test_a_token_is_shown_with_every_try_and_in_streams(script: Start) -> None:
    service = script((UNAVAILABLE, None))
    tokens = iter(["first", "second", "third"])
    with VaeClient(service.target, token=lambda: next(tokens)) as client:
        client.sample("digits", 1)
        list(client.sample_stream("digits", 1))
    with VaeClient(service.target, token="fixed") as client:
        client.encode("digits", [[0.0]])

    shown = [text.removeprefix("Bearer ") for text in service.credentials]
    assert shown[-1] == "fixed"
    assert shown[:-1] == sorted(shown[:-1])
    assert len(shown) == 3 + 1


@pytest.mark.parametrize("call", [blocking, on_a_loop])
def test_no_token_is_shown_unless_there_is_one(script: Start, call: Any) -> None:
    service = script()
    call(service.target, "sample", "digits", 1)

    assert service.credentials == [None]


def test_a_full_queue_is_asked_again_when_it_said(script: Start, call: Any) -> None:
    service = script((FULL, 0.01), (FULL, 0.02))

    assert call(service.target, "sample", "digits", 2).observations.shape == (2, 1)
    assert len(service.requests) == 3


def test_a_full_queue_that_names_no_time_is_not_asked_again(script: Start, call: Any) -> None:
    service = script((FULL, None))

    with pytest.raises(VaeError, match="RESOURCE_EXHAUSTED"):
        call(service.target, "sample", "digits", 2)
    assert len(service.requests) == 1


def test_a_queue_that_stays_full_is_left_alone_in_the_end(script: Start, call: Any) -> None:
    service = script(*[(FULL, 0.0)] * 10)

    with pytest.raises(VaeError) as caught:
        call(service.target, "sample", "digits", 2)
    assert caught.value.retry_delay == 0.0
    assert len(service.requests) == 4


def test_a_time_beyond_the_deadline_is_not_waited_for(script: Start, call: Any) -> None:
    service = script((FULL, 4.0))

    with pytest.raises(VaeError, match="RESOURCE_EXHAUSTED"):
        call(service.target, "sample", "digits", 2, timeout=3.0)
    assert len(service.requests) == 1


@pytest.mark.parametrize("code", [UNAVAILABLE, grpc.StatusCode.CANCELLED])
def test_what_no_replica_took_is_repeated(script: Start, call: Any, code: grpc.StatusCode) -> None:
    service = script(*[(code, None)] * 4)

    assert call(service.target, "sample", "digits", 2).observations.shape == (2, 1)
    assert len(service.requests) == 5


def test_what_its_caller_cancels_is_not_repeated(script: Start) -> None:
    service = script(answer=threading.Event())

    async def cancel() -> None:
        async with AsyncVaeClient(service.target) as client:
            call = asyncio.create_task(client.sample("digits", 1))
            await asyncio.to_thread(service.arrived.acquire)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            service.answer.set()
            await client.sample("digits", 2)

    asyncio.run(cancel())

    assert [request.sample_count for request in service.requests] == [1, 2]


def test_a_large_request_is_repeated_too(script: Start, call: Any) -> None:
    service = script((UNAVAILABLE, None))
    observations = np.zeros((3, 2**20), np.float32)

    assert call(service.target, "encode", "digits", observations).mean.shape == (3, 2**20)
    assert len(service.requests) == 2


def test_every_call_has_a_deadline(script: Start, call: Any) -> None:
    service = script()

    call(service.target, "sample", "digits", 1)

    assert 0 < service.remaining[0] <= ROUNDED_UP * DEFAULT_TIMEOUT


def test_a_repeat_does_not_renew_the_deadline(script: Start, call: Any) -> None:
    service = script((FULL, 0.3))

    call(service.target, "sample", "digits", 1, timeout=9.0)

    first, second = service.remaining
    assert second < first - 0.15


def test_every_stream_has_a_deadline(script: Start, call: Any) -> None:
    service = script()

    call(service.target, "sample_stream", "digits", 1)
    call(service.target, "sample_stream", "digits", 1, timeout=5.0)

    default, given = service.remaining
    assert DEFAULT_TIMEOUT < default <= ROUNDED_UP * DEFAULT_STREAM_TIMEOUT
    assert 0 < given < DEFAULT_TIMEOUT


@pytest.mark.parametrize("failure", [(UNAVAILABLE, None), (FULL, 0.01)])
def test_a_stream_that_breaks_goes_on_where_it_was(script: Start, call: Any, failure: Any) -> None:
    service = script(failure, chunks_before_failure=3)

    chunks: list[Samples] = call(service.target, "sample_stream", "digits", 9, seed=7)

    assert [len(chunk.observations) for chunk in chunks] == [1] * 9
    assert [message.request.start_index for message in service.requests] == [0, 3]


def test_requests_of_a_stream_that_breaks_are_each_answered_once(script: Start, call: Any) -> None:
    service = script((UNAVAILABLE, None), (FULL, 0.01), chunks_before_failure=3)
    batches = [np.full((1, 2), number, np.float32) for number in range(11)]

    parts = call(service.target, "encode_stream", "digits", iter(batches))

    assert [part.mean.flat[0] for part in parts] == list(range(11))
    assert len(service.requests) == 3


def test_arrays_at_fault_are_refused_by_the_call(script: Start, call: Any) -> None:
    service = script()

    with pytest.raises(TypeError, match="observations must be floating-point"):
        call(service.target, "encode", "digits", [[1]])
