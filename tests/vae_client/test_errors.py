"""What a failed call raises."""

from collections.abc import Iterable

import grpc
from google.protobuf.any_pb2 import Any
from google.rpc import error_details_pb2, status_pb2

from vae_client.errors import error_of


class Failed:
    """A call that failed, as grpc raises it."""

    def __init__(self, details: bytes | None) -> None:
        self._details = details

    def code(self) -> grpc.StatusCode:
        return grpc.StatusCode.RESOURCE_EXHAUSTED

    def details(self) -> str:
        return "the queue is full"

    def trailing_metadata(self) -> Iterable[tuple[str, bytes]] | None:
        if self._details is None:
            return None
        return [("other-bin", b"\xff"), ("grpc-status-details-bin", self._details)]


def test_the_details_of_the_service_are_read() -> None:
    info = error_details_pb2.ErrorInfo(reason="QUEUE_FULL", domain="vae.v1")
    retry = error_details_pb2.RetryInfo()
    retry.retry_delay.FromMilliseconds(250)
    violation = error_details_pb2.BadRequest.FieldViolation(field="latents.shape")
    request = error_details_pb2.BadRequest(field_violations=[violation])
    status = status_pb2.Status()
    for detail in (info, retry, request):
        packed = Any()
        packed.Pack(detail)
        status.details.append(packed)

    error = error_of(Failed(status.SerializeToString()))

    assert str(error) == "RESOURCE_EXHAUSTED: the queue is full"
    assert (error.reason, error.field, error.retry_delay) == ("QUEUE_FULL", "latents.shape", 0.25)


def test_an_error_without_details_keeps_its_code() -> None:
    error = error_of(Failed(None))

    assert error.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert (error.reason, error.field, error.retry_delay) == ("", None, None)


def test_broken_details_do_not_hide_the_error() -> None:
    assert error_of(Failed(b"\xff\xff")).code is grpc.StatusCode.RESOURCE_EXHAUSTED
