"""Messages in whatever pieces they come, and what they cost in memory meanwhile."""

import gzip
import itertools
import struct
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import pytest
from google.protobuf.wrappers_pb2 import BytesValue
from hypothesis import given
from hypothesis import strategies as st
from vae.v1.tensor_pb2 import Tensor
from vae.v1.vae_service_pb2 import EncodeRequest

from service.transport import Stream, StreamMethod
from service.transport.http2 import frames
from service.transport.http2.frames import Setting
from service.transport.http2.messages import Packed, Unpacker, Unreadable
from service.transport.spliced import Spliced
from service.wire import bytes_field
from tests.integration.waiting import wait_until
from tests.service.transport.raw_client import RawClient, data, message
from tests.service.transport.served import SECONDS, Server

Connect = Callable[..., RawClient]
MIB = 2**20


def prefixed(content: bytes, compressed: int = 0) -> bytes:
    return struct.pack(">BI", compressed, len(content)) + content


@contextmanager
def traced() -> Iterator[None]:
    tracemalloc.start()
    try:
        yield
    finally:
        tracemalloc.stop()


@given(
    contents=st.lists(st.binary(max_size=60), max_size=6),
    cuts=st.lists(st.integers(0, 400), max_size=8),
    around=st.integers(0, 3),
)
def test_messages_are_the_same_in_any_pieces(
    contents: list[bytes], cuts: list[int], around: int
) -> None:
    sent = b"".join(map(prefixed, contents))
    bounds = [0, *sorted(min(cut, len(sent)) for cut in cuts), len(sent)]
    unpacker, found = Unpacker(60, b"", BytesValue), []
    for start, end in itertools.pairwise(bounds):
        data = b"~" * around + sent[start:end] + b"~" * around
        found += map(bytes, unpacker.feed(data, around, around + end - start))
    assert found == contents
    assert unpacker.empty


def test_a_message_may_come_byte_by_byte() -> None:
    sent = prefixed(bytes(range(250)))
    unpacker = Unpacker(1000, b"", BytesValue)
    found = [each for at in range(len(sent)) for each in unpacker.feed(sent, at, at + 1)]
    assert list(map(bytes, found)) == [bytes(range(250))]


def test_a_message_that_has_come_in_part_leaves_the_unpacker_not_empty() -> None:
    for part in (prefixed(b"four")[:3], prefixed(b"four")[:5], prefixed(b"four")[:8]):
        unpacker = Unpacker(60, b"", BytesValue)
        assert list(unpacker.feed(part, 0, len(part))) == []
        assert not unpacker.empty


def test_a_compressed_message_keeps_its_bytes_until_it_is_unpacked() -> None:
    packed = gzip.compress(b"content")
    unpacker = Unpacker(60, b"gzip", BytesValue)
    (found,) = unpacker.feed(prefixed(packed, 1), 0, len(packed) + 5)
    assert isinstance(found, Packed)
    assert found == packed
    assert unpacker.unpack(found) == b"content"


def test_a_message_beyond_the_limit_is_refused_by_its_prefix() -> None:
    with pytest.raises(Unreadable, match="61 bytes or more"):
        list(Unpacker(60, b"", BytesValue).feed(prefixed(bytes(61)), 0, 5))


def test_a_message_takes_the_memory_of_what_has_come_and_not_of_what_it_announces() -> None:
    begun = struct.pack(">BI", 0, 64 * MIB) + bytes(1000)
    unpacker = Unpacker(64 * MIB, b"", BytesValue)
    with traced():
        list(unpacker.feed(begun, 0, len(begun)))
        _, peak = tracemalloc.get_traced_memory()
    assert peak < 100_000


def wide(connect: Connect) -> RawClient:
    """A client that takes large answers."""
    client = connect({Setting.INITIAL_WINDOW_SIZE: 2**24})
    client.send(frames.window_update(0, 2**24))
    return client


@pytest.mark.parametrize("reserved", [0, 0x80])  # a bit of every frame that means nothing
def test_a_large_frame_is_taken_as_it_comes(
    connect: Connect, server: Server, reserved: int
) -> None:
    client = wide(connect)
    content = message(bytes(range(256)) * 450)
    frame = bytearray(data(1, content))
    frame[5] |= reserved
    client.send(client.headers(1, "Echo"), frame[:20_000])
    held = server.transport.usage
    wait_until(lambda: held().held_bytes > 15_000)
    client.send(frame[20_000:60_000])
    wait_until(lambda: held().held_bytes > 55_000)
    assert [len(each._input) for each in server.transport._connections] == [0]
    client.send(frame[60_000:], client.headers(3, "Echo"), data(3, message(b"next")))
    assert client.answer(1).data == content
    assert client.answer(3).values == [b"next"]


def test_a_frame_of_a_call_that_has_ended_is_skipped_to_its_end(connect: Connect) -> None:
    client = connect({})
    frame = data(1, message(bytes(100_000)), 0)
    client.send(client.headers(1, "Nothing"), frame[:50_000])
    assert client.answer(1).ended
    client.send(frame[50_000:], client.headers(3, "Echo"), data(3, message(b"next")))
    assert client.answer(3).values == [b"next"]


def test_a_large_frame_with_padding_loses_it(connect: Connect, server: Server) -> None:
    client = wide(connect)
    content = message(bytes(100_000))
    flags = frames.END_STREAM | frames.PADDED
    frame = data(1, b"\x07" + content + bytes(7), flags)
    client.send(client.headers(1, "Echo"), frame[:50_000])
    wait_until(lambda: server.transport.usage().held_bytes > 50_000)
    client.send(frame[50_000:])
    assert client.answer(1).data == content


@pytest.mark.parametrize("method", ["Wait", "Collect"])
def test_a_large_request_is_copied_once(connect: Connect, server: Server, method: str) -> None:
    size = MIB - 1000  # the window of a stream
    client = wide(connect)
    content = message(bytes(size))
    pieces = [content[start : start + 2**17] for start in range(0, len(content), 2**17)]
    sent = [client.headers(1, method), *(data(1, piece, 0) for piece in pieces), data(1, b"")]
    ended = server.methods.arrived if method == "Wait" else server.records.ended
    with traced():
        for each in sent:
            client.socket.sendall(each)
        assert ended.acquire(timeout=SECONDS)
        _, peak = tracemalloc.get_traced_memory()
    assert peak / size < 1.5  # a quarter is what one read takes
    server.methods.release()


@pytest.mark.parametrize("name", ["a", "ab", "abc", "abcd"])
@pytest.mark.parametrize("first", [40, 10_000, 200_000])
def test_large_contents_begin_where_numbers_may(name: str, first: int) -> None:
    contents = np.arange(50_000, dtype="<f4").tobytes()
    request = EncodeRequest(model=name, observations=Tensor(data=contents))
    sent = prefixed(request.SerializeToString())
    unpacker = Unpacker(MIB, b"", EncodeRequest)
    found = [*unpacker.feed(sent, 0, first), *unpacker.feed(sent, first, len(sent))]
    assert [len(each) for each in found] == [len(sent) - 5]
    array = np.ndarray(50_000, "<f4", found[0], bytes(found[0]).index(contents))
    assert array.flags.aligned
    assert array[-1] == 49_999


def test_a_large_message_of_a_stream_is_sent_from_where_it_lies(
    connect: Connect, server: Server
) -> None:
    contents = bytes(range(256)) * (3 * MIB // 256)
    array = np.frombuffer(contents, np.uint8)

    async def send(stream: Stream) -> None:
        await stream.receive()
        await stream.send(Spliced(bytes_field(1, array)))

    server.transport.add([StreamMethod("test.Test", "Send", BytesValue, send)])
    client = connect({Setting.INITIAL_WINDOW_SIZE: 2**24, Setting.MAX_FRAME_SIZE: 2**17})
    client.send(frames.window_update(0, 2**24))
    received, count = memoryview(bytearray(4 * MIB)), 0
    with traced():
        client.call(1, "Send")
        while count < len(contents):
            count += client.socket.recv_into(received[count:])
        _, peak = tracemalloc.get_traced_memory()
    assert peak / len(contents) < 0.5
    client._input += bytes(received[:count])
    assert client.answer(1).values == [contents]
