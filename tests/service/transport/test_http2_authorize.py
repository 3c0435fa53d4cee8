"""Calls that may not be made are answered before their messages come."""

from collections.abc import Callable

from service.errors import Unauthenticated
from service.transport.metadata import Metadata, values_of
from tests.service.transport.raw_client import RawClient
from tests.service.transport.served import Server

UNAUTHENTICATED, INTERNAL = 16, 13


def authorize(path: str, metadata: Metadata) -> None:
    assert path.startswith("test.Test/")
    match values_of(metadata, "authorization"):
        case ["good"]:
            return
        case ["odd"]:
            raise RuntimeError("a defect")
    raise Unauthenticated("CREDENTIALS_MISSING", "expected credentials")


def test_a_call_is_refused_by_its_headers_alone(
    serve: Callable[..., Server], connect: Callable[..., RawClient]
) -> None:
    server = serve(authorize=authorize)
    client = connect(to=server)
    for stream, method in ((1, "Echo"), (3, "Talk"), (5, "Wait")):
        client.send(client.headers(stream, method))
        answer = client.answer(stream)
        assert answer.status == UNAUTHENTICATED
        assert answer.headers["grpc-message"] == "expected credentials"
    client.call(7, "Echo", authorization="good")
    assert client.answer(7).values == [b"x"]
    assert server.records.calls == [
        ("Echo", "UNAUTHENTICATED"),
        ("Talk", "UNAUTHENTICATED"),
        ("Wait", "UNAUTHENTICATED"),
        ("Echo", "OK"),
    ]


def test_a_defect_of_the_check_refuses_too_and_is_logged(
    serve: Callable[..., Server], connect: Callable[..., RawClient]
) -> None:
    server = serve(authorize=authorize)
    client = connect(to=server)
    client.call(1, "Echo", authorization="odd")
    answer = client.answer(1)
    assert answer.status == INTERNAL
    assert "defect" not in answer.headers["grpc-message"]
    assert server.records.errors == ["request_failed"]
