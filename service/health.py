"""grpc.health.v1: "" says that the process lives, a service's name that it takes requests."""

from grpc_health.v1 import health_pb2
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse

from service.completion import Completion
from service.errors import HealthUnknown
from service.transport import Call, Method, Stream, StreamMethod

LIVENESS = ""
HEALTH_SERVICE = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name


class Health:
    """The health of services, by name. Can be set and asked from any thread."""

    def __init__(self, services: tuple[str, ...]) -> None:
        self._status = dict.fromkeys(services, HealthCheckResponse.NOT_SERVING)
        self._status[LIVENESS] = HealthCheckResponse.SERVING
        self.ready = False
        self._watchers: set[Completion[None]] = set()

    def set_ready(self, ready: bool) -> None:
        """Readiness on or off; liveness stays."""
        self.ready = ready
        status = HealthCheckResponse.SERVING if ready else HealthCheckResponse.NOT_SERVING
        for service in self._status.keys() - {LIVENESS}:
            self._status[service] = status
        for change in list(self._watchers):
            change.settle()

    def methods(self) -> list[Method | StreamMethod]:
        """Check and Watch, for a transport."""
        return [
            Method(HEALTH_SERVICE, "Check", HealthCheckRequest, self.check),
            StreamMethod(HEALTH_SERVICE, "Watch", HealthCheckRequest, self.watch),
        ]

    async def check(self, request: HealthCheckRequest, call: Call) -> HealthCheckResponse:
        """The status of a service. Raises HealthUnknown for one that is not here."""
        status = self._status.get(request.service)
        if status is None:
            raise HealthUnknown("no such service")
        return HealthCheckResponse(status=status)

    async def watch(self, stream: Stream) -> None:
        """The status of a service now and whenever it changes, until the client goes."""
        request = await stream.receive()
        assert isinstance(request, HealthCheckRequest)
        last = None
        while True:
            change: Completion[None] = Completion()
            self._watchers.add(change)  # before the status is read, so that no change is missed
            try:
                status = self._status.get(request.service, HealthCheckResponse.SERVICE_UNKNOWN)
                if status != last:
                    last = status
                    await stream.send(HealthCheckResponse(status=status))
                await change
            finally:
                self._watchers.discard(change)
