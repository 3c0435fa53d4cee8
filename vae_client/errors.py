"""What a failed call raises."""

from collections.abc import Iterable
from typing import Any, Protocol, TypeVar

import grpc
from google.protobuf.message import DecodeError, Message
from google.rpc import error_details_pb2, status_pb2

_DETAILS_KEY = "grpc-status-details-bin"
_Detail = TypeVar("_Detail", bound=Message)


class FailedCall(Protocol):
    """What grpc raises, in its sync and its asyncio form."""

    def code(self) -> grpc.StatusCode: ...
    def details(self) -> str | None: ...
    def trailing_metadata(self) -> Iterable[Any] | None: ...


class VaeError(Exception):
    """A call that got no answer.

    code: the gRPC status code. reason: the service's stable word for it, for example
    "MODEL_NOT_FOUND"; "" when the answer did not come from the service. field: path of the field
    at fault, for example "observations.shape", or None. retry_delay: seconds after which the
    service expects another try to succeed, or None.
    """

    def __init__(
        self,
        code: grpc.StatusCode,
        message: str,
        reason: str = "",
        field: str | None = None,
        retry_delay: float | None = None,
    ) -> None:
        super().__init__(f"{code.name}: {message}")
        self.code = code
        self.reason = reason
        self.field = field
        self.retry_delay = retry_delay


def error_of(call: FailedCall) -> VaeError:
    """The error of a failed call, with the google.rpc details that the service sent."""
    status = status_pb2.Status()
    for key, value in call.trailing_metadata() or ():
        if key == _DETAILS_KEY and isinstance(value, bytes):
            try:
                status.ParseFromString(value)
            except DecodeError:
                break  # something between us and the service broke them; the code still holds
    info = _detail(status, error_details_pb2.ErrorInfo)
    request = _detail(status, error_details_pb2.BadRequest)
    retry = _detail(status, error_details_pb2.RetryInfo)
    return VaeError(
        call.code(),
        call.details() or "",
        info.reason if info else "",
        request.field_violations[0].field if request and request.field_violations else None,
        retry.retry_delay.ToTimedelta().total_seconds() if retry else None,
    )


def _detail(status: status_pb2.Status, kind: type[_Detail]) -> _Detail | None:
    for packed in status.details:
        if packed.Is(kind.DESCRIPTOR):
            detail = kind()
            packed.Unpack(detail)
            return detail
    return None
