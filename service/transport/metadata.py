"""What a client sends along with an RPC, in whichever form a transport has it."""

import re
import uuid
from collections.abc import Callable, Iterable
from typing import Final

Metadata = Iterable[tuple[str | bytes, str | bytes]]
Authorize = Callable[[str, Metadata], None]  # of "SERVICE/METHOD"; raises ServiceError to refuse

REQUEST_ID: Final = "x-request-id"
MAX_METADATA: Final = 16_384  # bytes of a request's headers as HPACK counts them; gRPC's default
_ID = re.compile(r"[A-Za-z0-9._:/+=-]{1,128}")


def values_of(metadata: Metadata, name: str) -> list[str]:
    """All values of a key, which is in lower case as HTTP/2 has it."""
    return [_text(value) for key, value in metadata if _text(key) == name]


def request_id(values: list[str]) -> str:
    """The client's name for its request; "" if it gave none, several or one that is too long."""
    return values[0] if len(values) == 1 and _ID.fullmatch(values[0]) else ""


def new_request_id() -> str:
    """A name for a request whose client gave it none."""
    return uuid.uuid4().hex


def _text(text: str | bytes) -> str:
    return text if isinstance(text, str) else text.decode("latin-1")
