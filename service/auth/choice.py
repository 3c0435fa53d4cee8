"""The check that the settings ask for."""

from service.auth.bearer import Bearer
from service.auth.files import Reread
from service.auth.keys import Claims, read_keys
from service.auth.tokens import read_tokens
from service.logs import Logger
from service.settings import Settings, SettingsError
from service.transport.metadata import Authorize


def make_authorize(settings: Settings, log: Logger) -> Authorize | None:
    """What every RPC passes; None serves everybody. Raises SettingsError."""
    if settings.tokens is None and settings.jwt_keys is None:
        return None
    if settings.jwt_keys is not None and not (settings.jwt_issuer and settings.jwt_audience):
        raise SettingsError("--jwt-keys needs --jwt-issuer and --jwt-audience")
    try:
        tokens = Reread(settings.tokens, read_tokens, log) if settings.tokens else None
        keys = Reread(settings.jwt_keys, read_keys, log) if settings.jwt_keys else None
    except (OSError, ValueError) as error:
        raise SettingsError(str(error)) from error
    if settings.tls_certificate is None:
        log.warning("tokens_without_tls", reason="whoever sees the traffic can use its tokens")
    claims = Claims(
        settings.jwt_issuer, settings.jwt_audience, settings.jwt_rights_claim, settings.jwt_leeway
    )
    return Bearer(tokens, keys, claims)
