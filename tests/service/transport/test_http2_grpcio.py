"""The clients that people have: grpcio, blocking and asyncio, in plain text and over TLS."""

import asyncio
import contextlib
import itertools
import socket
import ssl
import struct
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.wrappers_pb2 import BytesValue
from grpc import aio

from service.transport import ConnectionLifetimes
from service.transport.http2 import frames
from service.transport.tls import TlsFiles
from tests.service.transport.certificates import issue, make_authority
from tests.service.transport.raw_client import RawClient
from tests.service.transport.served import CHUNK, SECONDS, Server

Serve = Callable[..., Server]
LIMIT = 64 * 2**20
UNLIMITED = (
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.use_local_subchannel_pool", 1),  # a connection for each channel
)


def packed(value: bytes) -> bytes:
    return BytesValue(value=value).SerializeToString()


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("certificates")
    make_authority(folder)
    for name in ("server", "client"):
        issue(folder, name)
    return folder


@pytest.fixture(params=["plain", "tls"])
def secured(request: pytest.FixtureRequest) -> bool:
    return bool(request.param == "tls")


@pytest.fixture
def options(certificates: Path, secured: bool) -> dict[str, Any]:
    """Of a transport."""
    if not secured:
        return {}
    return {"tls": TlsFiles(certificates / "server.crt", certificates / "server.key")}


@pytest.fixture
def dial(certificates: Path, secured: bool) -> Iterator[Callable[..., grpc.Channel]]:
    """Opens channels."""
    with contextlib.ExitStack() as channels:

        def start(server: Server, **options: Any) -> grpc.Channel:
            target = f"127.0.0.1:{server.transport.port}"
            if secured:
                trusted = grpc.ssl_channel_credentials((certificates / "ca.crt").read_bytes())
                channel = grpc.secure_channel(target, trusted, UNLIMITED, **options)
            else:
                channel = grpc.insecure_channel(target, UNLIMITED, **options)
            return channels.enter_context(channel)

        yield start


Dial = Callable[..., Any]  # a channel, of whose calls the stubs know too little


def call(channel: Any, method: str, value: bytes, **options: Any) -> bytes:
    answer = channel.unary_unary(f"/test.Test/{method}")(packed(value), timeout=SECONDS, **options)
    return BytesValue.FromString(answer).value


def talk(channel: Any, values: list[bytes], **options: Any) -> list[bytes]:
    method = channel.stream_stream("/test.Test/Talk")
    answers = method(map(packed, values), timeout=SECONDS, **options)
    return [BytesValue.FromString(answer).value for answer in answers]


def test_a_blocking_client_calls_in_every_way(
    serve: Serve, options: dict[str, Any], dial: Dial
) -> None:
    channel = dial(serve(**options))
    assert call(channel, "Echo", b"abc") == b"abc"
    assert talk(channel, [b"a", bytes(100_000)]) == [b"a", bytes(100_000)]
    counted = channel.unary_stream("/test.Test/Count")(packed(b"20"), timeout=SECONDS)
    assert [answer == packed(CHUNK) for answer in counted] == [True] * 20
    with pytest.raises(grpc.RpcError) as failure:
        call(channel, "Fail", b"abc")
    assert failure.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert failure.value.details() == "value: expected another"


@pytest.mark.parametrize("reason", ["stop", "age"])
def test_a_stream_that_ends_with_its_connection_is_unavailable_to_its_client(
    serve: Serve, options: dict[str, Any], dial: Dial, reason: str
) -> None:
    if reason == "age":
        age = {"max_connection_age": 0.1, "max_connection_age_grace": 0.1}
        options = {**options, "lifetimes": ConnectionLifetimes(**age)}
    server = serve(**options)
    answers = dial(server).unary_stream("/test.Test/Count")(packed(b"1000"), timeout=SECONDS)
    assert next(answers) == packed(CHUNK)  # nobody reads the others: one has arrived in part
    if reason == "stop":
        server.stop()
    assert server.records.ended.acquire(timeout=SECONDS)
    with pytest.raises(grpc.RpcError) as failure:
        list(answers)
    assert failure.value.code() is grpc.StatusCode.UNAVAILABLE
    assert server.records.calls == [("Count", "UNAVAILABLE")]


@pytest.mark.parametrize(
    "compression", [grpc.Compression.Gzip, grpc.Compression.Deflate], ids=["gzip", "deflate"]
)
def test_a_client_may_compress(
    serve: Serve, options: dict[str, Any], dial: Dial, compression: grpc.Compression
) -> None:
    channel = dial(serve(**options), compression=compression)
    values = [bytes(10_000), b"x", bytes(range(256)) * 200]
    assert [call(channel, "Echo", value) for value in values] == values
    assert talk(channel, values) == values


def test_an_asyncio_client_calls_in_every_way(serve: Serve) -> None:
    server = serve()

    async def calls() -> None:
        channel: Any
        async with aio.insecure_channel(f"127.0.0.1:{server.transport.port}") as channel:
            echo = channel.unary_unary("/test.Test/Echo")
            values = [packed(b"%d" % number) for number in range(200)]
            answers = await asyncio.gather(*(echo(value, timeout=SECONDS) for value in values))
            assert answers == values
            stream: Any = channel.stream_stream("/test.Test/Talk")(timeout=SECONDS)
            for value in values[:20]:  # in turns
                await stream.write(value)
                assert await stream.read() == value
            await stream.done_writing()
            assert await stream.read() is aio.EOF  # type: ignore[attr-defined]
            waiting: Any = channel.unary_unary("/test.Test/Wait")(values[0], timeout=0.1)
            assert await waiting.code() is grpc.StatusCode.DEADLINE_EXCEEDED

    asyncio.run(calls())


def test_the_largest_message_goes_both_ways(
    serve: Serve, options: dict[str, Any], dial: Dial
) -> None:
    value = bytes(LIMIT - 1024)
    channel = dial(serve(**options))
    for _ in range(3):
        assert call(channel, "Echo", value) == value


def test_a_large_message_arrives(serve: Serve, options: dict[str, Any], dial: Dial) -> None:
    value = bytes(LIMIT - 1024)
    with pytest.raises(grpc.RpcError) as failure:
        call(dial(serve(**options)), "Fail", value)
    assert failure.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_many_channels_are_served_at_once(
    serve: Serve, options: dict[str, Any], dial: Dial
) -> None:
    server = serve(**options)
    channels = [dial(server) for _ in range(40)]
    with ThreadPoolExecutor(8) as threads:
        for turn in range(5):
            values = [b"%d %d" % (turn, number) for number in range(len(channels))]
            echoed = threads.map(call, channels, itertools.repeat("Echo"), values)
            assert list(echoed) == values
    assert server.records.errors == []


def test_no_call_fails_while_connections_grow_old(
    serve: Serve, options: dict[str, Any], dial: Dial
) -> None:
    server = serve(lifetimes=ConnectionLifetimes(max_connection_age=0.1), **options)
    channel, end = dial(server), time.monotonic() + 2.3

    def client(number: int) -> int:
        for count in itertools.count():
            value = b"%d %d" % (number, count)
            if number % 2:
                assert call(channel, "Echo", value) == value
            else:
                assert talk(channel, [value] * 3) == [value] * 3
            if time.monotonic() > end:
                return count
        raise AssertionError

    with ThreadPoolExecutor(4) as threads:
        assert min(threads.map(client, range(4))) > 0
    assert {code for _, code in server.records.calls} == {"OK"}


def test_a_client_that_shows_no_certificate_is_refused(serve: Serve, certificates: Path) -> None:
    authority, *pair = (
        (certificates / name).read_bytes() for name in ("ca.crt", "client.key", "client.crt")
    )
    files = [certificates / name for name in ("server.crt", "server.key", "ca.crt")]
    server = serve(tls=TlsFiles(*files))
    target = f"127.0.0.1:{server.transport.port}"
    known = grpc.ssl_channel_credentials(authority, *pair)
    unknown = grpc.ssl_channel_credentials(authority)
    with grpc.secure_channel(target, unknown) as channel, pytest.raises(grpc.RpcError) as failure:
        call(channel, "Echo", b"abc")
    assert failure.value.code() is grpc.StatusCode.UNAVAILABLE
    with grpc.secure_channel(target, known) as channel:
        assert call(channel, "Echo", b"abc") == b"abc"
    assert [code for _, code in server.records.calls] == ["OK"]


@pytest.fixture
def connect_securely(certificates: Path) -> Iterator[Callable[[Server], RawClient]]:
    """Connects clients over TLS, which have sent their settings."""
    context = ssl.create_default_context(cafile=certificates / "ca.crt")
    context.set_alpn_protocols(["h2"])
    clients: list[RawClient] = []

    def start(server: Server) -> RawClient:
        client = RawClient(server.transport.port)
        clients.append(client)
        client.socket = context.wrap_socket(client.socket, server_hostname="127.0.0.1")
        client.send(frames.PREFACE, frames.settings({}))
        return client

    yield start
    for client in clients:
        client.close()


def test_a_client_that_is_gone_before_it_is_accepted_keeps_nobody_out(
    serve: Serve, certificates: Path, connect_securely: Callable[[Server], RawClient]
) -> None:
    server = serve(tls=TlsFiles(certificates / "server.crt", certificates / "server.key"))
    busy = connect_securely(server)
    busy.call(1, "Block")
    assert server.methods.arrived.acquire(timeout=SECONDS)
    gone = socket.create_connection(("127.0.0.1", server.transport.port))
    gone.send(b"hello")
    gone.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    gone.close()  # with a reset
    server.methods.unblock.set()
    assert busy.answer(1).status == 0
    next_one = connect_securely(server)
    next_one.call(1, "Echo")
    assert next_one.answer(1).status == 0
    assert server.records.errors == []


def test_a_handshake_that_stops_in_the_middle_delays_nobody_and_ends(
    serve: Serve, certificates: Path, connect_securely: Callable[[Server], RawClient]
) -> None:
    files = TlsFiles(certificates / "server.crt", certificates / "server.key")
    server = serve(tls=files, lifetimes=ConnectionLifetimes(handshake_timeout=0.1))
    with socket.create_connection(("127.0.0.1", server.transport.port), SECONDS) as slow:
        slow.send(b"\x16\x03\x01\x02\x00\x01")  # the head of a ClientHello
        client = connect_securely(server)
        client.call(1, "Echo", b"abc")
        assert client.answer(1).values == [b"abc"]
        assert slow.recv(1) == b""


def test_a_client_that_asks_for_another_protocol_is_refused(
    serve: Serve, certificates: Path
) -> None:
    server = serve(tls=TlsFiles(certificates / "server.crt", certificates / "server.key"))
    context = ssl.create_default_context(cafile=certificates / "ca.crt")
    context.set_alpn_protocols(["http/1.1"])
    address = ("127.0.0.1", server.transport.port)
    with (
        socket.create_connection(address, SECONDS) as plain,
        context.wrap_socket(plain, server_hostname="127.0.0.1") as client,
    ):
        assert client.recv(1) == b""
    assert server.records.errors == []
