"""The file of hashed tokens.

TOML, one table for each token:

    [token.NAME]
    sha256 = "..."              64 hex digits: of the token's bytes
    rights = ["infer", "read"]  of "infer", "read", "admin"
    expires = 2027-01-01T00:00:00Z    may be left out

A token is 32 random bytes, which nobody can guess: SHA-256 hides it as well as a slow hash would,
which is for words that people choose, and would cost every call milliseconds.
"""

import hashlib
import hmac
import re
import secrets
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from service.auth.rights import RIGHTS

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_KEYS: Final = {"sha256", "rights", "expires"}


@dataclass(frozen=True)
class Token:
    """One entry. digest: SHA-256 of the token. expires: seconds since 1970, or None."""

    name: str
    digest: bytes
    rights: frozenset[str]
    expires: float | None = None


def read_tokens(path: Path) -> tuple[Token, ...]:
    """The entries of a file. Raises OSError, and ValueError that says what was expected."""
    if path.stat().st_mode & 0o004:
        raise ValueError(f"everybody can read the tokens' file {path}; chmod o-r it")
    try:
        document = tomllib.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path} is no TOML: {error}") from error
    tables = document.pop("token", {})
    if document or not isinstance(tables, dict):
        raise ValueError(f"{path}: expected tables [token.NAME] only")
    return tuple(_token(path, name, entry) for name, entry in tables.items())


def find(tokens: Iterable[Token], digest: bytes) -> Token | None:
    """The entry of a digest. It takes as long whichever it is, and if it is none."""
    found = None
    for token in tokens:
        if hmac.compare_digest(token.digest, digest):
            found = token
    return found


def new_token() -> str:
    """A token that nobody can guess."""
    return secrets.token_urlsafe(32)


def entry(name: str, token: str, rights: Iterable[str]) -> str:
    """The file's text for a token. Raises ValueError for a name or a right that cannot be."""
    listed = sorted(set(rights))
    _check(name, listed)
    quoted = ", ".join(f'"{right}"' for right in listed)
    digest = hashlib.sha256(token.encode()).hexdigest()
    return f'[token.{name}]\nsha256 = "{digest}"\nrights = [{quoted}]\n'


def _token(path: Path, name: str, fields: Any) -> Token:
    where = f"{path}: [token.{name}]"
    if not isinstance(fields, dict) or not fields.keys() <= _KEYS:
        raise ValueError(f"{where}: expected the keys sha256, rights and expires only")
    digest, rights, expires = (fields.get(key) for key in ("sha256", "rights", "expires"))
    if not isinstance(digest, str) or not _DIGEST.fullmatch(digest):
        raise ValueError(f"{where}: sha256: expected 64 lower-case hex digits")
    if not isinstance(rights, list):
        raise ValueError(f"{where}: rights: expected a list")
    if expires is not None and (not isinstance(expires, datetime) or expires.tzinfo is None):
        raise ValueError(f"{where}: expires: expected a time with its zone")
    try:
        _check(name, rights)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error
    return Token(
        name, bytes.fromhex(digest), frozenset(rights), expires.timestamp() if expires else None
    )


def _check(name: str, rights: list[Any]) -> None:
    if not _NAME.fullmatch(name):
        raise ValueError("expected a name of at most 64 letters, digits, _ and -")
    if not rights or not all(isinstance(right, str) and right in RIGHTS for right in rights):
        raise ValueError(f"rights: expected some of {', '.join(sorted(RIGHTS))}")
