"""Whatever bytes arrive, the service lives and answers the next client."""

from collections.abc import Callable

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.transport.http2 import frames
from tests.service.transport.raw_client import RawClient, message
from tests.service.transport.served import Server

FIXTURES = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
BLOCKS = st.sampled_from(["Echo", "Talk", "Count", "Fail", "Nothing"])
PAYLOADS = st.binary(max_size=40) | st.sampled_from([message(b"5"), message(b"5")[:3], bytes(8)])
FRAMES = st.tuples(
    st.integers(0, 11), st.integers(0, 255), st.sampled_from([0, 1, 3, 5, 2**31 - 1]), PAYLOADS
)


def check(server: Server, connect: Callable[..., RawClient]) -> None:
    good = connect({})
    good.call(1, "Echo", b"alive")
    assert good.answer(1).values == [b"alive"]
    good.close()
    assert server.records.errors == []


@FIXTURES
@given(sent=st.binary(max_size=300), preface=st.booleans())
def test_any_bytes(
    server: Server, connect: Callable[..., RawClient], sent: bytes, preface: bool
) -> None:
    client = RawClient(server.transport.port)
    client.send(frames.PREFACE if preface else b"", sent)
    client.close()
    check(server, connect)


@FIXTURES
@given(steps=st.lists(FRAMES | BLOCKS, max_size=25))
def test_any_frames(
    server: Server,
    connect: Callable[..., RawClient],
    steps: list[tuple[int, int, int, bytes] | str],
) -> None:
    client = RawClient(server.transport.port, {})
    sent = b""
    for number, step in enumerate(steps):
        if isinstance(step, str):
            sent += client.headers(2 * number + 1, step)
        else:
            sent += frames.frame(*step)
    client.send(sent)
    client.close()
    check(server, connect)
