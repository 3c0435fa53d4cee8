"""The check of one RPC: `authorization: Bearer TOKEN` in its metadata."""

import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Final

from service.auth.keys import Claims, Key, Verified, verify
from service.auth.rights import right_of
from service.auth.tokens import Token, find
from service.errors import PermissionDenied, Unauthenticated
from service.reread import Reread
from service.transport.metadata import Metadata, values_of

_MAX_TOKEN: Final = 8192  # bytes; a JWT of an issuer with many claims has two thousand
_REMEMBERED: Final = 1024  # verified tokens: a signature takes a hundred microseconds


class Bearer:
    """An `Authorize`. On one thread, or with a lock around it.

    tokens, keys: either may be None. clock: seconds since 1970.
    """

    def __init__(
        self,
        tokens: Reread[tuple[Token, ...]] | None,
        keys: Reread[Mapping[str, Key]] | None,
        claims: Claims,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._tokens = tokens
        self._keys = keys
        self._claims = claims
        self._clock = clock
        self._verified: OrderedDict[bytes, Verified] = OrderedDict()
        self._verified_by: Mapping[str, Key] | None = None

    def __call__(self, path: str, metadata: Metadata) -> None:
        """Raises Unauthenticated, or PermissionDenied where a known caller lacks the right."""
        right = right_of(path)
        if right is not None and right not in self._rights(_token(metadata)):
            raise PermissionDenied(right)

    def look(self) -> None:
        """Reads the files again if they have changed, though nobody calls. From any thread."""
        for file in (self._tokens, self._keys):
            if file is not None:
                file.content()

    def _rights(self, token: str) -> frozenset[str]:
        digest = hashlib.sha256(token.encode()).digest()
        if self._tokens is not None:
            found = find(self._tokens.content(), digest)
            if found is not None:
                _check_time(found.expires, self._clock())
                return found.rights
        if self._keys is not None:
            return self._signed(token, digest, self._keys.content())
        raise Unauthenticated("CREDENTIALS_INVALID", "the token is not valid here")

    def _signed(self, token: str, digest: bytes, keys: Mapping[str, Key]) -> frozenset[str]:
        if keys is not self._verified_by:  # a key may have been withdrawn
            self._verified.clear()
            self._verified_by = keys
        verified = self._verified.get(digest)
        if verified is None:
            verified = verify(token, keys, self._claims)
            self._verified[digest] = verified
            if len(self._verified) > _REMEMBERED:
                self._verified.popitem(last=False)
        _check_time(verified.expires, self._clock())
        return verified.rights


def _token(metadata: Metadata) -> str:
    values = values_of(metadata, "authorization")
    if not values:
        raise Unauthenticated(
            "CREDENTIALS_MISSING", "expected the metadata authorization: Bearer TOKEN"
        )
    scheme, _, token = values[0].partition(" ")
    if len(values) > 1 or scheme.lower() != "bearer" or not token or len(token) > _MAX_TOKEN:
        raise Unauthenticated("CREDENTIALS_MALFORMED", "authorization: expected Bearer TOKEN, once")
    return token


def _check_time(expires: float | None, now: float) -> None:
    if expires is not None and expires <= now:
        raise Unauthenticated("CREDENTIALS_EXPIRED", "the token has expired")
