"""Our transport with methods for tests, on a loop of its own."""

import asyncio
import threading
from dataclasses import dataclass, field
from typing import Any

from google.protobuf.wrappers_pb2 import BytesValue

from service.completion import Completion
from service.errors import InvalidRequest
from service.transport import Call, Method, Stream, StreamMethod, TransportOptions
from service.transport.http2.server import Http2Transport

SECONDS = 20.0
CHUNK = bytes(100_000)


@dataclass
class Records:
    """What a transport reports: an observer and a log."""

    calls: list[tuple[str, str]] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    ended: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))

    def call_done(self, method: str, code: str, seconds: float) -> None:
        self.calls.append((method.rpartition("/")[2], code))
        self.ended.release()

    def error(self, event: str, **values: Any) -> None:
        self.errors.append(event)

    def info(self, event: str, **values: Any) -> None:
        """Nothing to record."""

    warning = info


class Methods:
    """Echo, Fail, Wait (until `release`), Talk (echo of a stream) and Count (large messages)."""

    def __init__(self) -> None:
        self.waiting: list[Completion[None]] = []
        self.arrived = threading.Semaphore(0)

    def all(self) -> list[Method | StreamMethod]:
        return [
            Method("test.Test", "Echo", BytesValue, self.echo),
            Method("test.Test", "Fail", BytesValue, self.fail),
            Method("test.Test", "Wait", BytesValue, self.wait),
            StreamMethod("test.Test", "Talk", BytesValue, self.talk),
            StreamMethod("test.Test", "Count", BytesValue, self.count),
        ]

    def release(self) -> None:
        """Lets every waiting call end."""
        while self.waiting:
            self.waiting.pop().settle()

    async def echo(self, request: BytesValue, call: Call) -> BytesValue:
        return request

    async def fail(self, request: BytesValue, call: Call) -> BytesValue:
        raise InvalidRequest("value", "expected another")

    async def wait(self, request: BytesValue, call: Call) -> BytesValue:
        completion: Completion[None] = Completion()
        self.waiting.append(completion)
        self.arrived.release()
        await completion
        return request

    async def talk(self, stream: Stream) -> None:
        while (request := await stream.receive()) is not None:
            await stream.send(request)

    async def count(self, stream: Stream) -> None:
        request = await stream.receive()
        assert isinstance(request, BytesValue)
        for _ in range(int(request.value)):
            await stream.send(BytesValue(value=CHUNK))


class Server:
    """A transport that runs on a loop of its own."""

    def __init__(self, **options: Any) -> None:
        self.records = Records()
        self.methods = Methods()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self.transport = self.run(self._start(options))

    async def _start(self, options: dict[str, Any]) -> Http2Transport:
        log: Any = self.records
        transport = Http2Transport(TransportOptions("127.0.0.1:0", **options), self.records, log)
        transport.add(self.methods.all())
        await transport.start()
        return transport

    def run(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(SECONDS)

    def begin_stop(self, grace: float) -> Any:
        """The transport's end, as a future."""
        return asyncio.run_coroutine_threadsafe(self.transport.stop(grace), self._loop)

    def stop(self, grace: float = 0.0) -> None:
        self.run(self.transport.stop(grace))

    def close(self) -> None:
        self.methods.release()
        self.stop()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
