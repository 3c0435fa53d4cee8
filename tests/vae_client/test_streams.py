"""What a stream asks for next, after what has arrived."""

import itertools
from collections.abc import Iterable, Iterator
from typing import Any

import grpc
import numpy as np
from vae.v1 import vae_service_pb2

from vae_client import calls, messages
from vae_client.errors import VaeError
from vae_client.repeats import Repeats
from vae_client.streams import SampleStream

GONE = VaeError(grpc.StatusCode.UNAVAILABLE, "gone")


def chunk(start: int, count: int) -> vae_service_pb2.SampleStreamResponse:
    response = vae_service_pb2.SampleResponse(
        observations=messages.to_tensor(np.zeros((count, 2)), "observations"), seed=5
    )
    return vae_service_pb2.SampleStreamResponse(response=response, start_index=start)


def stream(count: int) -> SampleStream:
    return calls.sample_stream("digits", count, chunk_items=4)


def test_a_broken_stream_goes_on_after_what_has_arrived_with_the_same_seed() -> None:
    state = stream(10)
    state.take(chunk(0, 4))
    state.take(chunk(4, 4))

    assert state.wait(GONE, Repeats(60.0)) is not None
    request = state.request().request
    assert (request.seed, request.start_index, request.sample_count) == (5, 8, 2)
    assert not state.done
    state.take(chunk(8, 2))
    assert state.done


def test_a_stream_that_breaks_four_times_in_vain_is_given_up() -> None:
    state, repeats = stream(10), Repeats(60.0)

    waits = [state.wait(GONE, repeats) is None for _ in range(4)]

    assert waits == [False, False, False, True]


def test_progress_allows_as_many_breaks_again() -> None:
    state, repeats = stream(10), Repeats(60.0)
    while state.wait(GONE, repeats) is not None:
        pass

    repeats.progress()

    assert state.wait(GONE, repeats) is not None


def test_a_stream_at_fault_is_not_asked_for_again() -> None:
    fault = VaeError(grpc.StatusCode.INVALID_ARGUMENT, "bad")

    assert stream(10).wait(fault, Repeats(60.0)) is None


def numbered(count: int) -> Iterator[np.ndarray]:
    return (np.full((1, 2), number, np.float32) for number in range(count))


def sent(requests: Iterable[Any], count: int) -> list[float]:
    """The first number of each of some requests."""
    arrays = (message.request.observations for message in itertools.islice(requests, count))
    return [messages.to_array(array).flat[0] for array in arrays]


def answer() -> vae_service_pb2.EncodeStreamResponse:
    zeros = messages.to_tensor(np.zeros((1, 2)), "mean")
    response = vae_service_pb2.EncodeResponse(mean=zeros, log_variance=zeros)
    return vae_service_pb2.EncodeStreamResponse(response=response)


def test_requests_that_a_broken_stream_did_not_answer_are_sent_again() -> None:
    state = calls.encode_stream("digits", numbered(6))
    assert sent(state.request(), 4) == [0, 1, 2, 3]
    state.take(answer())

    assert state.wait(GONE, Repeats(60.0)) is not None
    assert sent(state.request(), 10) == [1, 2, 3, 4, 5]


def test_a_request_that_the_broken_stream_took_late_is_not_lost() -> None:
    state = calls.encode_stream("digits", numbered(4))
    old, new = state.request(), None
    assert sent(old, 2) == [0, 1]
    new = state.request()
    assert sent(old, 1) == [2]

    assert sent(new, 10) == [0, 1, 2, 3]
    assert sent(old, 10) == [3]


def test_a_broken_stream_sends_nothing_that_the_next_has_had_answered() -> None:
    state = calls.encode_stream("digits", numbered(3))
    old = state.request()
    assert sent(old, 1) == [0]
    new = state.request()
    assert sent(new, 3) == [0, 1, 2]
    for _ in range(3):
        state.take(answer())

    assert sent(old, 10) == []
