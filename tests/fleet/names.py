"""A name server for one name, whose addresses change while clients use it. RFC 1035."""

import socket
import struct
import threading
from types import TracebackType
from typing import Self

_HEAD = struct.Struct(">6H")
_ANSWER = struct.Struct(">HHHIH")
_ADDRESS, _INTERNET = 1, 1
_IS_ANSWER = 0x8580  # authoritative, recursion desired and available
_TO_THE_NAME = 0xC00C  # a pointer to the question's


class NameServer:
    """Answers every question for IPv4 addresses with `addresses`, and others with nothing.

    authority: where it listens, for "dns://AUTHORITY/NAME:PORT". questions: how many have come.
    """

    def __init__(self) -> None:
        self.addresses: list[str] = []
        self.questions = 0
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self.authority = f"127.0.0.1:{self._socket.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._socket.sendto(b"", self._socket.getsockname())
        self._thread.join()
        self._socket.close()

    def _serve(self) -> None:
        while True:
            query, client = self._socket.recvfrom(4096)
            if not query:  # from __exit__
                return
            self._socket.sendto(self._answer(query), client)

    def _answer(self, query: bytes) -> bytes:
        number, _, _, _, _, _ = _HEAD.unpack_from(query)
        end = query.index(b"\0", _HEAD.size) + 5  # the name, its type and class
        kind, _ = struct.unpack_from(">2H", query, end - 4)
        addresses = list(self.addresses) if kind == _ADDRESS else []
        self.questions += kind == _ADDRESS
        answers = [
            _ANSWER.pack(_TO_THE_NAME, _ADDRESS, _INTERNET, 1, 4) + socket.inet_aton(address)
            for address in addresses
        ]
        head = _HEAD.pack(number, _IS_ANSWER, 1, len(answers), 0, 0)
        return b"".join((head, query[_HEAD.size : end], *answers))
