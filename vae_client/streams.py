"""The state of calls that are answered in parts; no I/O."""

import threading
from collections.abc import Callable, Iterator
from typing import Any, Generic, Protocol, TypeVar

from google.protobuf.message import Message
from vae.v1 import vae_service_pb2

from vae_client import messages
from vae_client.errors import VaeError
from vae_client.messages import Samples
from vae_client.repeats import Repeats
from vae_client.stubs import Stubs

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
Method = Callable[[Stubs], Any]


class Stream(Protocol[T_co]):
    """timeout: seconds for the whole, None takes the default."""

    timeout: float | None

    @property
    def method(self) -> Method:
        """The method to call."""
        ...

    @property
    def done(self) -> bool:
        """Whether every part has arrived."""
        ...

    def request(self) -> Message | Iterator[Message]:
        """What to send for the parts that have not arrived."""
        ...

    def take(self, message: Any) -> T_co:
        """The part in a message."""
        ...

    def wait(self, error: VaeError, repeats: Repeats) -> float | None:
        """Seconds after which to go on in a new call; None to give up."""
        ...


class SampleStream:
    """A stream of samples, which goes on after the last that arrived. See Stream."""

    def __init__(
        self, request: vae_service_pb2.SampleRequest, chunk_items: int, timeout: float | None = None
    ) -> None:
        self.timeout = timeout
        self._request = request
        self._chunk_items = chunk_items

    @property
    def method(self) -> Method:
        """See Stream."""
        return lambda on: on.vae.SampleStream

    @property
    def done(self) -> bool:
        """See Stream."""
        return not self._request.sample_count

    def request(self) -> vae_service_pb2.SampleStreamRequest:
        """See Stream."""
        return vae_service_pb2.SampleStreamRequest(
            request=self._request, chunk_items=self._chunk_items
        )

    def take(self, message: vae_service_pb2.SampleStreamResponse) -> Samples:
        """See Stream. The next request starts after the samples, with the same seed."""
        chunk = messages.samples(message.response)
        self._request.seed = chunk.seed
        self._request.start_index = message.start_index + len(chunk.observations)
        self._request.sample_count -= len(chunk.observations)
        return chunk

    def wait(self, error: VaeError, repeats: Repeats) -> float | None:
        """See Stream. It goes on after a break, too."""
        return repeats.wait(error, unasked=True)


class InOrder(Generic[T]):
    """One answer to each of many requests, in their order; after a break, what has not been
    answered is sent again. See Stream."""

    def __init__(
        self,
        method: Method,
        requests: Iterator[Message],
        read: Callable[[Any], T],
        timeout: float | None,
    ) -> None:
        self.method = method
        self.timeout = timeout
        self.done = False  # whether more are to be answered, the caller's requests know
        self._requests = requests
        self._read = read
        self._taking = threading.Lock()
        self._taken = 0  # requests from the caller
        self._answered = 0
        self._open: dict[int, Message] = {}  # those between, by their numbers

    def request(self) -> Iterator[Message]:
        """See Stream. gRPC sends from a thread of its own, and that of a call that broke may still
        wait for the caller's next request, which is then the next call's too."""
        number = self._answered
        while True:
            if number == self._taken:
                with self._taking:
                    if number == self._taken:
                        taken = next(self._requests, None)
                        if taken is None:
                            return
                        self._open[number] = taken
                        self._taken += 1
            message = self._open.get(number)
            if message is None:
                return  # answered: this is the thread of a call that broke
            yield message
            number += 1

    def take(self, message: Any) -> T:
        """See Stream."""
        del self._open[self._answered]
        self._answered += 1
        return self._read(message.response)

    def wait(self, error: VaeError, repeats: Repeats) -> float | None:
        """See Stream."""
        return repeats.wait(error, unasked=True)
