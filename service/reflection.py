"""Server reflection: lets grpcurl and its like call the service without its .proto files."""

from collections.abc import Iterable
from typing import Any

from grpc_reflection.v1alpha import reflection, reflection_pb2

from service.transport import Stream, StreamMethod

# The messages of both versions are the same on the wire.
_NAMES = ("grpc.reflection.v1.ServerReflection", reflection.SERVICE_NAME)


def reflection_methods(services: Iterable[str]) -> list[StreamMethod]:
    """Reflection on services, and on itself."""
    servicer: Any = reflection.ReflectionServicer((*services, *_NAMES[1:]))

    async def serve(stream: Stream) -> None:
        while (request := await stream.receive()) is not None:
            for response in servicer.ServerReflectionInfo(iter([request]), None):
                await stream.send(response)

    request_type = reflection_pb2.ServerReflectionRequest
    return [StreamMethod(name, "ServerReflectionInfo", request_type, serve) for name in _NAMES]
