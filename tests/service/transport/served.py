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
    warnings: list[str] = field(default_factory=list)
    ended: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))

    def call_done(self, method: str, code: str, seconds: float) -> None:
        self.calls.append((method.rpartition("/")[2], code))
        self.ended.release()

    def error(self, event: str, **values: Any) -> None:
        self.errors.append(event)

    def warning(self, event: str, **values: Any) -> None:
        self.warnings.append(event)

    def info(self, event: str, **values: Any) -> None:
        """Nothing to record."""

    debug = info


class Methods:
    """Echo, Fail, Wait (until `release`), Talk (echo of a stream) and Count (large messages).

    Size answers with so many bytes, Explain fails with so long a text, Block keeps the transport's
    thread until `unblock`, Ignore receives nothing until `release`, Collect receives all there is.
    """

    def __init__(self) -> None:
        self.waiting: list[Completion[None]] = []
        self.arrived = threading.Semaphore(0)
        self.unblock = threading.Event()
        self.collected = threading.Event()

    def all(self) -> list[Method | StreamMethod]:
        return [
            Method("test.Test", "Echo", BytesValue, self.echo),
            Method("test.Test", "Fail", BytesValue, self.fail),
            Method("test.Test", "Wait", BytesValue, self.wait),
            StreamMethod("test.Test", "Talk", BytesValue, self.talk),
            StreamMethod("test.Test", "Count", BytesValue, self.count),
            Method("test.Test", "Size", BytesValue, self.size),
            Method("test.Test", "Explain", BytesValue, self.explain),
            Method("test.Test", "Block", BytesValue, self.block),
            StreamMethod("test.Test", "Ignore", BytesValue, self.ignore),
            StreamMethod("test.Test", "Collect", BytesValue, self.collect),
        ]

    def release(self) -> None:
        """Lets every waiting call end."""
        self.unblock.set()
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
        if not isinstance(request, BytesValue) or not request.value.isdigit():
            raise InvalidRequest("value", "expected a number")
        for _ in range(int(request.value)):
            await stream.send(BytesValue(value=CHUNK))

    async def size(self, request: BytesValue, call: Call) -> BytesValue:
        return BytesValue(value=bytes(int(request.value)))

    async def explain(self, request: BytesValue, call: Call) -> BytesValue:
        raise InvalidRequest("value", "x" * int(request.value))

    async def block(self, request: BytesValue, call: Call) -> BytesValue:
        self.arrived.release()
        self.unblock.wait(SECONDS)
        return request

    async def ignore(self, stream: Stream) -> None:
        completion: Completion[None] = Completion()
        self.waiting.append(completion)
        self.arrived.release()
        await completion

    async def collect(self, stream: Stream) -> None:
        self.arrived.release()
        try:
            while await stream.receive() is not None:
                pass
        finally:
            self.collected.set()


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
