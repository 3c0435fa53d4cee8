"""Domain error -> gRPC status with google.rpc details, in one table (https://google.aip.dev/193)."""

from typing import Final

import grpc
from google.protobuf import any_pb2, message
from google.rpc import error_details_pb2, status_pb2

from service import errors

DOMAIN: Final = "vae.v1"
DETAILS_KEY: Final = "grpc-status-details-bin"

_TABLE: Final[dict[type[errors.ServiceError], tuple[grpc.StatusCode, str]]] = {
    errors.InvalidRequest: (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_ARGUMENT"),
    errors.ModelNotFound: (grpc.StatusCode.NOT_FOUND, "MODEL_NOT_FOUND"),
    errors.HealthUnknown: (grpc.StatusCode.NOT_FOUND, "SERVICE_NOT_FOUND"),
    errors.Unauthenticated: (grpc.StatusCode.UNAUTHENTICATED, "CREDENTIALS_INVALID"),
    errors.PermissionDenied: (grpc.StatusCode.PERMISSION_DENIED, "RIGHT_MISSING"),
    errors.ModelNotReady: (grpc.StatusCode.UNAVAILABLE, "MODEL_NOT_READY"),
    errors.ModelControlOff: (grpc.StatusCode.FAILED_PRECONDITION, "MODEL_CONTROL_OFF"),
    errors.LoadFailed: (grpc.StatusCode.FAILED_PRECONDITION, "LOAD_FAILED"),
    errors.RepositoryUnreadable: (grpc.StatusCode.UNAVAILABLE, "REPOSITORY_UNREADABLE"),
    errors.LatentSpaceMismatch: (grpc.StatusCode.FAILED_PRECONDITION, "LATENT_SPACE_MISMATCH"),
    errors.NotOffered: (grpc.StatusCode.FAILED_PRECONDITION, "NOT_OFFERED"),
    # Not UNAVAILABLE: clients retry that by themselves and would turn overload into a storm.
    errors.QueueFull: (grpc.StatusCode.RESOURCE_EXHAUSTED, "QUEUE_FULL"),
    errors.Overloaded: (grpc.StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED"),
    errors.Cancelled: (grpc.StatusCode.CANCELLED, "CANCELLED"),
    errors.Draining: (grpc.StatusCode.UNAVAILABLE, "DRAINING"),
    errors.ExpiredInQueue: (grpc.StatusCode.DEADLINE_EXCEEDED, "EXPIRED_IN_QUEUE"),
    errors.InferenceFailed: (grpc.StatusCode.INTERNAL, "INFERENCE_FAILED"),
}


def status_of(error: errors.ServiceError) -> tuple[grpc.StatusCode, str, bytes]:
    """Code, text and the serialized google.rpc.Status for the trailing metadata."""
    code, reason = _TABLE[type(error)]
    details: list[message.Message] = []
    metadata: dict[str, str] = {}
    if isinstance(error, errors.InvalidRequest):
        if error.field.split(".")[0] in ("observations", "latents", "noise"):
            reason = "INVALID_TENSOR"
        violation = error_details_pb2.BadRequest.FieldViolation(
            field=error.field, description=error.description
        )
        details.append(error_details_pb2.BadRequest(field_violations=[violation]))
    elif isinstance(error, errors.Unauthenticated):
        reason = error.reason
    elif isinstance(error, errors.PermissionDenied):
        metadata["right"] = error.right
    elif (seconds := _retry_seconds(error)) is not None:
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.FromNanoseconds(round(seconds * 1e9))
        details.append(retry)
    details.insert(0, error_details_pb2.ErrorInfo(reason=reason, domain=DOMAIN, metadata=metadata))
    status = status_pb2.Status(code=code.value[0], message=str(error))
    for detail in details:
        packed = any_pb2.Any()
        packed.Pack(detail)
        status.details.append(packed)
    return code, str(error), status.SerializeToString()


def _retry_seconds(error: errors.ServiceError) -> float | None:
    """When another try makes sense; None where it would fail in the same way."""
    if isinstance(error, errors.QueueFull):
        return error.drain_seconds
    if isinstance(error, errors.Draining):
        return 0.0  # at another replica
    passing = errors.ModelNotReady | errors.RepositoryUnreadable | errors.Overloaded
    return 1.0 if isinstance(error, passing) else None
