"""The load generator's client against a real gRPC server on loopback."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest

from benchmarks import frames
from benchmarks.http2 import Connection, ConnectionLost, Method
from benchmarks.load import Load, measure
from benchmarks.pool import Pool

PATH = "/test.Service/Call"


def answer(request: bytes, context: grpc.ServicerContext) -> bytes:
    """Twice the request; fails on one that starts with "!"."""
    if request.startswith(b"!"):
        context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "enough")
    return request * 2


@pytest.fixture(scope="module")
def target() -> Iterator[str]:
    server = grpc.server(ThreadPoolExecutor(4))
    handler = grpc.unary_unary_rpc_method_handler(
        answer, request_deserializer=None, response_serializer=None
    )
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("test.Service", {"Call": handler}),)
    )
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(None).wait()


def call(pool: Pool, count: int) -> list[tuple[float, str]]:
    """`count` calls at once; token and code of each."""
    for token in range(count):
        pool.submit(float(token))
    ended: list[tuple[float, str]] = []
    for _ in range(1000):
        if len(ended) == count:
            break
        ended += pool.poll(1.0)
    return sorted(ended)


@pytest.mark.parametrize("connections", [1, 3])
def test_every_call_ends_once_with_its_own_token(target: str, connections: int) -> None:
    pool = Pool(target, Method(PATH, b"x" * 100, (200, 200)), connections)

    assert call(pool, 50) == [(float(token), "OK") for token in range(50)]
    assert call(pool, 50) == [(float(token), "OK") for token in range(50)]
    pool.close()


@pytest.mark.parametrize("size", [0, 1, 16_379, 16_380, 40_000])
def test_messages_larger_than_a_frame_are_split_and_counted(target: str, size: int) -> None:
    pool = Pool(target, Method(PATH, b"x" * size, (2 * size, 2 * size)), 1)

    assert {code for _, code in call(pool, 20)} == {"OK"}
    pool.close()


def test_an_answer_of_another_size_is_an_error(target: str) -> None:
    pool = Pool(target, Method(PATH, b"x" * 100, (201, 300)), 1)

    assert {code for _, code in call(pool, 3)} == {"WRONG_SIZE"}
    pool.close()


def test_a_failed_call_has_its_code(target: str) -> None:
    pool = Pool(target, Method(PATH, b"!", (0, 0)), 1)

    assert {code for _, code in call(pool, 3)} == {"RESOURCE_EXHAUSTED"}
    pool.close()


def test_an_unknown_method_is_unimplemented(target: str) -> None:
    pool = Pool(target, Method("/test.Service/Other", b"", (0, 0)), 1)

    assert {code for _, code in call(pool, 3)} == {"UNIMPLEMENTED"}
    pool.close()


def test_a_request_beyond_the_servers_window_is_refused_at_once(target: str) -> None:
    host, _, port = target.partition(":")

    with pytest.raises(ConnectionLost, match="does not fit the server's window"):
        Connection(host, int(port), Method(PATH, b"x" * 2**26, (0, 0)))


@pytest.mark.parametrize("load", [Load(concurrency=4), Load(rate=500.0)])
def test_a_load_is_measured_to_the_end(
    target: str, load: Load, short: Callable[[Load], Load]
) -> None:
    report = measure(target, Method(PATH, b"x", (2, 2)), short(load))

    assert report.requests > 0
    assert report.errors == {}
    assert report.p50_ms is not None
    assert report.p99_ms is not None
    assert report.p50_ms <= report.p99_ms
    assert report.server_cpu_us is not None
    assert report.resident_after is not None


def test_a_status_that_cannot_be_read_is_never_ok() -> None:
    assert frames.status(b"\x40\x0bgrpc-status\x010") == "OK"
    assert frames.status(b"\x40\x0bgrpc-status\x0213\x40\x0cgrpc-message\x01x") == "INTERNAL"
    assert frames.status(b"\x40\x0bgrpc-status\x0299") == "NO_STATUS"
    assert frames.status(b"\xbe") == "NO_STATUS"


def test_the_later_headers_name_what_the_first_ones_left_in_the_table() -> None:
    first, later = frames.header_blocks(PATH, "localhost:1")

    assert PATH.encode() in first
    assert later == b"\x83\x86" + bytes([0x80 | 66, 0x80 | 65, 0x80 | 64, 0x80 | 63, 0x80 | 62])
