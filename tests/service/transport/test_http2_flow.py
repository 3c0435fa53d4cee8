"""Flow control: whatever windows a client grants, its answers come whole, and others go on."""

from collections.abc import Callable

import pytest

from service.transport.http2 import frames
from service.transport.http2.frames import ErrorCode, Setting
from tests.service.transport.raw_client import RawClient, data, message, pieces
from tests.service.transport.served import CHUNK, Server

Connect = Callable[..., RawClient]


def windows(size: int) -> dict[Setting, int]:
    return {Setting.INITIAL_WINDOW_SIZE: size}


def test_an_answer_comes_whole_through_a_window_of_one_byte_at_a_time(connect: Connect) -> None:
    client = connect(windows(1))
    client.call(1, "Echo", b"abcdef")
    received = b""
    while len(received) < len(message(b"abcdef")):
        frame = client.until(lambda frame: frame.kind == frames.DATA)
        assert len(frame.payload) == 1
        received += frame.payload
        client.send(frames.window_update(1, 1))
    assert received == message(b"abcdef")
    assert client.answer(1).status == 0


def test_a_window_that_begins_at_nothing_is_waited_for(connect: Connect) -> None:
    client = connect(windows(0))
    client.call(1, "Echo", b"abc")
    client.until(lambda frame: frame.kind == frames.HEADERS)
    client.send(frames.window_update(1, 1000))
    assert client.answer(1).data == message(b"abc")


def test_new_settings_widen_the_window_of_a_stream_that_waits(connect: Connect) -> None:
    client = connect(windows(10))
    client.call(1, "Echo", bytes(1000))
    client.until(lambda frame: frame.kind == frames.DATA)
    client.send(frames.settings(windows(5000)))
    answer = client.answer(1)
    assert len(answer.data) + 10 == len(message(bytes(1000)))


def test_new_settings_are_acknowledged_before_they_are_used(connect: Connect) -> None:
    client = connect(windows(10))
    client.call(1, "Echo", bytes(1000))
    client.until(lambda frame: frame.kind == frames.DATA)
    client.send(frames.settings(windows(5000)))
    next_one = client.until(lambda frame: frame.kind in (frames.DATA, frames.SETTINGS))
    assert (next_one.kind, next_one.flags) == (frames.SETTINGS, frames.ACK)
    assert client.answer(1).status == 0


def test_a_window_that_new_settings_make_negative_has_to_grow_above_nothing(
    connect: Connect,
) -> None:
    client = connect(windows(100))
    client.call(1, "Echo", bytes(1000))
    client.until(lambda frame: frame.kind == frames.DATA)  # 100 bytes: the window is 0
    client.send(frames.settings(windows(60)))  # and now -40
    client.send(frames.window_update(1, 41))
    frame = client.until(lambda frame: frame.kind == frames.DATA)
    assert len(frame.payload) == 1
    client.send(frames.window_update(1, 5000))
    assert client.answer(1).status == 0


def test_a_stream_that_uses_up_the_connection_leaves_the_rest_when_it_grows(
    connect: Connect,
) -> None:
    client = connect(windows(2**20))
    client.call(1, "Echo", bytes(100_000))
    received = 0
    while received < frames.DEFAULT_WINDOW:
        received += len(client.until(lambda frame: frame.kind == frames.DATA).payload)
    client.call(3, "Echo", b"small")
    client.send(frames.window_update(0, 2**20))
    answers = {1: received, 3: 0}
    ended = set()
    while len(ended) < 2:
        frame = client.until(lambda frame: frame.stream in answers)
        if frame.kind == frames.DATA:
            answers[frame.stream] += len(frame.payload)
        if frame.flags & frames.END_STREAM:
            ended.add(frame.stream)
    assert answers == {1: len(message(bytes(100_000))), 3: len(message(b"small"))}


def test_a_client_takes_no_frame_larger_than_it_said(connect: Connect) -> None:
    client = connect(windows(2**20))
    client.send(frames.window_update(0, 2**20))
    client.call(1, "Count", b"2")
    assert client.answer(1).frames >= 200_000 / frames.DEFAULT_FRAME_SIZE
    larger = connect(windows(2**20) | {Setting.MAX_FRAME_SIZE: 2**19})
    larger.send(frames.window_update(0, 2**20))
    larger.call(1, "Count", b"2")
    assert larger.answer(1).frames == 2


@pytest.mark.parametrize("stream", [0, 1])
def test_a_window_beyond_the_largest_ends_the_connection(connect: Connect, stream: int) -> None:
    client = connect({})
    client.send(client.headers(1, "Wait"), data(1, message(b"x")))
    client.send(frames.window_update(stream, frames.MAX_WINDOW))
    last = client.until_closed()[-1]
    assert (last.kind, last.payload[7]) == (frames.GOAWAY, ErrorCode.FLOW_CONTROL_ERROR)


def test_a_window_that_grows_by_nothing_ends_the_connection(connect: Connect) -> None:
    client = connect({})
    client.send(frames.window_update(0, 0))
    assert client.until_closed()[-1].kind == frames.GOAWAY


@pytest.mark.parametrize("size", [1, 3, 7, 500])
def test_a_message_may_come_in_any_pieces(connect: Connect, size: int) -> None:
    client = connect({})
    content = message(bytes(range(256)) * 3)
    client.send(client.headers(1, "Echo"))
    parts = pieces(content, size)
    for part in parts[:-1]:
        client.send(data(1, part, 0))
    client.send(data(1, parts[-1]))
    assert client.answer(1).data == content


def test_one_frame_may_hold_several_messages(connect: Connect) -> None:
    client = connect({})
    client.send(client.headers(1, "Talk"))
    content = message(b"a") + message(b"bc") + message(b"")
    client.send(data(1, content[:-3], 0), data(1, content[-3:]))
    assert client.answer(1).values == [b"a", b"bc", b""]


def test_a_request_larger_than_the_windows_arrives(connect: Connect) -> None:
    client = connect(windows(2**24))
    client.send(frames.window_update(0, 2**24))
    content = message(bytes(3 * 2**20))
    client.send(client.headers(1, "Echo"))
    windows_left = {0: frames.DEFAULT_WINDOW, 1: 2**20}
    parts = list(pieces(content, 2**14))
    for index, part in enumerate(parts):
        while min(windows_left.values()) < len(part):
            frame = client.until(lambda frame: frame.kind == frames.WINDOW_UPDATE)
            windows_left[frame.stream] += int.from_bytes(frame.payload, "big")
        for stream in windows_left:
            windows_left[stream] -= len(part)
        client.send(data(1, part, frames.END_STREAM if index == len(parts) - 1 else 0))
    assert client.answer(1).data == content


def test_a_client_that_reads_nothing_holds_up_its_own_stream_only(
    connect: Connect, server: Server
) -> None:
    idle = connect(windows(2**30))
    idle.send(frames.window_update(0, 2**30))
    idle.call(1, "Count", b"100000")  # ten gigabytes, if anybody took them
    other = connect({})
    for number in range(50):
        other.call(2 * number + 1, "Echo", b"still here")
        assert other.answer(2 * number + 1).values == [b"still here"]
    assert len(CHUNK) == 100_000
    idle.close()
    assert server.records.ended.acquire(timeout=20)


def test_a_stream_of_many_messages_comes_whole(connect: Connect) -> None:
    client = connect(windows(2**18))
    client.send(frames.window_update(0, 2**30))
    client.call(1, "Count", b"40")
    received = 0
    while True:
        frame = client.until(lambda frame: frame.stream == 1)
        if frame.kind == frames.DATA:
            received += len(frame.payload)
            client.send(frames.window_update(1, len(frame.payload)))
        elif frame.flags & frames.END_STREAM:
            break
    assert received == 40 * len(message(CHUNK))
