"""Domain errors on the wire: the table of docs/design.md, row by row."""

from collections.abc import Iterator

import grpc
import pytest
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from service import errors
from service.status import DETAILS_KEY, DOMAIN, status_of

Code = grpc.StatusCode
INVALID_TENSOR = errors.InvalidRequest("observations.shape", "expected [items, 2]")
INVALID_COUNT = errors.InvalidRequest("sample_count", "expected 1 to 8, not 0")
TABLE = [
    (INVALID_TENSOR, Code.INVALID_ARGUMENT, "INVALID_TENSOR"),
    (errors.InvalidRequest("latents", "expected"), Code.INVALID_ARGUMENT, "INVALID_TENSOR"),
    (INVALID_COUNT, Code.INVALID_ARGUMENT, "INVALID_ARGUMENT"),
    (errors.ModelNotFound("no such model"), Code.NOT_FOUND, "MODEL_NOT_FOUND"),
    (errors.LatentSpaceMismatch("other"), Code.FAILED_PRECONDITION, "LATENT_SPACE_MISMATCH"),
    (errors.ModelControlOff("off"), Code.FAILED_PRECONDITION, "MODEL_CONTROL_OFF"),
    (errors.LoadFailed("damaged"), Code.FAILED_PRECONDITION, "LOAD_FAILED"),
    (errors.HealthUnknown("no such service"), Code.NOT_FOUND, "SERVICE_NOT_FOUND"),
    (errors.Cancelled("the caller is gone"), Code.CANCELLED, "CANCELLED"),
    (errors.Unauthenticated("CREDENTIALS_X", "x"), Code.UNAUTHENTICATED, "CREDENTIALS_X"),
    (errors.PermissionDenied("read"), Code.PERMISSION_DENIED, "RIGHT_MISSING"),
    (errors.ModelNotReady("loading"), Code.UNAVAILABLE, "MODEL_NOT_READY"),
    (errors.RepositoryUnreadable("not mounted"), Code.UNAVAILABLE, "REPOSITORY_UNREADABLE"),
    (errors.NotOffered("no scorer"), Code.FAILED_PRECONDITION, "NOT_OFFERED"),
    (errors.ModelControlOff("off"), Code.FAILED_PRECONDITION, "MODEL_CONTROL_OFF"),
    (errors.LoadFailed("damaged"), Code.FAILED_PRECONDITION, "LOAD_FAILED"),
    (errors.QueueFull(2.5), Code.RESOURCE_EXHAUSTED, "QUEUE_FULL"),
    (errors.Overloaded("too much"), Code.RESOURCE_EXHAUSTED, "OVERLOADED"),
    (errors.Draining("draining"), Code.UNAVAILABLE, "DRAINING"),
    (errors.ExpiredInQueue("expired"), Code.DEADLINE_EXCEEDED, "EXPIRED_IN_QUEUE"),
    (errors.InferenceFailed("failed"), Code.INTERNAL, "INFERENCE_FAILED"),
]
ROWS = pytest.mark.parametrize(
    ("error", "code", "reason"),
    TABLE,
    ids=[f"{reason}-{i}" for i, (*_, reason) in enumerate(TABLE)],
)


def subclasses(of: type) -> Iterator[type]:
    for kind in of.__subclasses__():
        yield kind
        yield from subclasses(kind)


def details(error: errors.ServiceError) -> list[Message]:
    """The unpacked details of a status, in their order."""
    known = (
        error_details_pb2.ErrorInfo,
        error_details_pb2.BadRequest,
        error_details_pb2.RetryInfo,
    )
    status = status_pb2.Status.FromString(status_of(error)[2])
    unpacked: list[Message] = []
    for packed in status.details:
        [kind] = (kind for kind in known if packed.Is(kind.DESCRIPTOR))
        unpacked.append(kind())
        packed.Unpack(unpacked[-1])
    return unpacked


@pytest.mark.parametrize("kind", sorted(set(subclasses(errors.ServiceError)), key=str))
def test_every_error_of_the_domain_has_a_row_in_the_table(kind: type) -> None:
    assert kind in {type(error) for error, *_ in TABLE}  # and ROWS shows that status_of knows it


@ROWS
def test_an_error_has_its_code(error: errors.ServiceError, code: Code, reason: str) -> None:
    assert status_of(error)[0] is code


@ROWS
def test_an_error_has_its_reason(error: errors.ServiceError, code: Code, reason: str) -> None:
    first = details(error)[0]
    assert isinstance(first, error_details_pb2.ErrorInfo)
    assert (first.reason, first.domain) == (reason, "vae.v1")


def test_a_missing_right_is_named() -> None:
    first = details(errors.PermissionDenied("read"))[0]
    assert isinstance(first, error_details_pb2.ErrorInfo)
    assert first.metadata == {"right": "read"}


@ROWS
def test_code_and_text_are_the_same_in_the_status_and_in_its_details(
    error: errors.ServiceError, code: Code, reason: str
) -> None:
    _, text, serialized = status_of(error)
    status = status_pb2.Status.FromString(serialized)
    assert (status.code, status.message) == (code.value[0], text) == (code.value[0], str(error))


@pytest.mark.parametrize("error", [INVALID_TENSOR, INVALID_COUNT])
def test_an_invalid_request_names_the_field_at_fault(error: errors.InvalidRequest) -> None:
    [_, bad_request] = details(error)
    violation = error_details_pb2.BadRequest.FieldViolation(
        field=error.field, description=error.description
    )
    assert bad_request == error_details_pb2.BadRequest(field_violations=[violation])


@pytest.mark.parametrize(
    ("error", "seconds"),
    [
        (errors.QueueFull(2.5), 2.5),
        (errors.QueueFull(0.0), 0.0),
        (errors.QueueFull(1e-9), 1e-9),
        (errors.QueueFull(86_400.25), 86_400.25),
        (errors.ModelNotReady("loading"), 1.0),
        (errors.RepositoryUnreadable("not mounted"), 1.0),
        (errors.Draining("another replica"), 0.0),
    ],
)
def test_an_error_that_passes_says_when_to_try_again(
    error: errors.ServiceError, seconds: float
) -> None:
    [_, retry] = details(error)
    assert isinstance(retry, error_details_pb2.RetryInfo)
    assert retry.retry_delay.ToNanoseconds() == round(seconds * 1e9)


@pytest.mark.parametrize(
    "error",
    [
        errors.ModelNotFound("no such model"),
        errors.LatentSpaceMismatch("other"),
        errors.ExpiredInQueue("expired"),
        errors.InferenceFailed("failed"),
    ],
)
def test_an_error_that_does_not_pass_has_no_further_detail(error: errors.ServiceError) -> None:
    assert len(details(error)) == 1


def test_overload_is_not_unavailable_as_clients_retry_that_by_themselves() -> None:
    assert status_of(errors.QueueFull(1.0))[0] is not Code.UNAVAILABLE


def test_a_failed_inference_shows_nothing_of_its_cause() -> None:
    error = errors.InferenceFailed("the batch failed")
    error.__cause__ = RuntimeError("/opt/models/secret.onnx: node 17")
    _, text, serialized = status_of(error)
    assert text == "the batch failed"
    assert b"secret" not in serialized


def test_the_details_travel_under_the_key_that_every_grpc_library_reads() -> None:
    assert (DETAILS_KEY, DOMAIN) == ("grpc-status-details-bin", "vae.v1")
