"""grpc.health.v1: "" says that the process lives, a service's name that it takes requests."""

from typing import Any

from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio  # type: ignore[attr-defined]  # the stubs lack it
from grpc_reflection.v1alpha import reflection

from service.transport import Transport

LIVENESS = ""


class Health:
    """The health service of a transport, with server reflection beside it."""

    def __init__(self, transport: Transport, services: tuple[str, ...]) -> None:
        self._services = services
        self._servicer: Any = aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._servicer, transport.server)
        name = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name
        reflection.enable_server_reflection(
            (*services, name, reflection.SERVICE_NAME), transport.server
        )

    async def set_ready(self, ready: bool) -> None:
        """Readiness on or off; liveness stays."""
        status = health_pb2.HealthCheckResponse
        await self._servicer.set(LIVENESS, status.SERVING)
        for service in self._services:
            await self._servicer.set(service, status.SERVING if ready else status.NOT_SERVING)
