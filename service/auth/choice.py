"""The check that the settings ask for."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from service.auth.bearer import Bearer
from service.auth.keys import Claims, read_keys
from service.auth.tokens import read_tokens
from service.logs import Logger
from service.reread import Reread
from service.settings import Settings, SettingsError

T = TypeVar("T")


def make_authorize(settings: Settings, log: Logger) -> Bearer | None:
    """What every RPC passes; None serves everybody. Raises SettingsError."""
    if settings.tokens is None and settings.jwt_keys is None:
        return None
    if settings.jwt_keys is not None and not (settings.jwt_issuer and settings.jwt_audience):
        raise SettingsError("--jwt-keys needs --jwt-issuer and --jwt-audience")
    try:
        tokens = _reread(settings.tokens, read_tokens, log)
        keys = _reread(settings.jwt_keys, read_keys, log)
    except (OSError, ValueError) as error:
        raise SettingsError(str(error)) from error
    if tokens is not None and not tokens.content():  # later that means that all are revoked
        raise SettingsError(f"--tokens: {settings.tokens} holds no token")
    if settings.tls_certificate is None:
        log.warning("tokens_without_tls", reason="whoever sees the traffic can use its tokens")
    claims = Claims(
        settings.jwt_issuer, settings.jwt_audience, settings.jwt_rights_claim, settings.jwt_leeway
    )
    return Bearer(tokens, keys, claims)


def _reread(path: Path | None, read: Callable[[Path], T], log: Logger) -> Reread[T] | None:
    return Reread((path,), functools.partial(read, path), log) if path else None
