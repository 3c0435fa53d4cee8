"""Streams that are answered request by request."""

from collections import deque
from typing import Any

import pytest
from google.protobuf.wrappers_pb2 import BytesValue

from service.completion import Completion, run
from service.errors import QueueFull
from service.streams import answer_in_order
from service.transport import Call


class Stream:
    """Whose client has sent all, and takes what comes."""

    call = Call(None)

    def __init__(self, *values: bytes) -> None:
        self.requests = deque(BytesValue(value=value) for value in values)
        self.sent: list[bytes] = []

    def receive(self) -> Completion[Any]:
        completion: Completion[Any] = Completion()
        completion.settle(self.requests.popleft() if self.requests else None)
        return completion

    def send(self, response: Any) -> Completion[None]:
        self.sent.append(response.value)
        completion: Completion[None] = Completion()
        completion.settle()
        return completion


def test_a_request_that_finds_the_queue_full_comes_again_in_its_turn() -> None:
    stream = Stream(b"1", b"2", b"3")

    async def answer(request: BytesValue) -> BytesValue:
        if len(stream.sent) < int(request.value) - 1:  # one before it still takes up the room
            raise QueueFull(1.0)
        return request

    run(answer_in_order(stream, answer))
    assert stream.sent == [b"1", b"2", b"3"]


def test_a_stream_ends_where_others_have_filled_the_queue() -> None:
    stream = Stream(b"1", b"2", b"3")

    async def answer(request: BytesValue) -> BytesValue:
        if request.value == b"2":
            raise QueueFull(1.0)
        return request

    with pytest.raises(QueueFull):
        run(answer_in_order(stream, answer))
    assert stream.sent == [b"1"]
