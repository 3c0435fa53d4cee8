"""JSON Web Tokens (RFC 7519), by a file of their issuer's public keys (RFC 7517).

The algorithm is the key's, never the token's: a token that names "none", or HS256 with a public
key as its secret, is signed by nothing that is known here.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import jwt

from service.auth.rights import RIGHTS
from service.errors import Unauthenticated

_ALGORITHMS: Final = {("RSA", None): "RS256", ("EC", "P-256"): "ES256", ("OKP", "Ed25519"): "EdDSA"}
_PRIVATE: Final = {"d", "k", "p", "q"}
_MIN_RSA_BITS: Final = 2048


@dataclass(frozen=True)
class Key:
    """A public key, and the one algorithm that it verifies."""

    algorithm: str
    key: Any


@dataclass(frozen=True)
class Claims:
    """What tokens must say. rights_claim: a claim with names of rights, in a list or with spaces
    between; it may name other things too. leeway: seconds by which clocks may differ."""

    issuer: str
    audience: str
    rights_claim: str
    leeway: float


@dataclass(frozen=True)
class Verified:
    """Of a token whose signature and claims hold. expires: seconds since 1970."""

    rights: frozenset[str]
    expires: float


def read_keys(path: Path) -> Mapping[str, Key]:
    """Keys by their `kid`; one may have none. Raises OSError, and ValueError with the reason."""
    try:
        listed = json.loads(path.read_text())["keys"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: expected a JSON object with a list of keys") from error
    keys: dict[str, Key] = {}
    for number, fields in enumerate(listed if isinstance(listed, list) else ()):
        if not isinstance(fields, dict):
            raise ValueError(f"{path}: key {number}: expected an object")
        if fields.get("use", "sig") != "sig":
            continue
        identity = fields.get("kid", "")
        if not isinstance(identity, str) or identity in keys:
            raise ValueError(f"{path}: key {number}: expected a kid of its own")
        try:
            keys[identity] = _key(fields)
        except (ValueError, jwt.PyJWTError) as error:
            raise ValueError(f"{path}: key {number}: {error}") from error
    if not keys:
        raise ValueError(f"{path}: expected at least one key for signatures")
    return keys


def _key(fields: dict[str, Any]) -> Key:
    algorithm = _ALGORITHMS.get((fields.get("kty", ""), fields.get("crv")))
    if algorithm is None or fields.get("alg", algorithm) != algorithm:
        raise ValueError("expected a key of RS256, ES256 or EdDSA (Ed25519)")
    if fields.keys() & _PRIVATE:
        raise ValueError("expected a public key; this one is private")
    key: Any = jwt.PyJWK(fields, algorithm).key
    if algorithm == "RS256" and key.key_size < _MIN_RSA_BITS:
        raise ValueError(f"expected an RSA key of at least {_MIN_RSA_BITS} bits")
    return Key(algorithm, key)


def verify(token: str, keys: Mapping[str, Key], claims: Claims) -> Verified:
    """Checks the signature, `exp`, `nbf`, `iss` and `aud`. Raises Unauthenticated."""
    try:
        identity = jwt.get_unverified_header(token).get("kid", "")
        key = keys.get(identity)
        if key is None and not identity and len(keys) == 1:
            [key] = keys.values()
        if key is None:
            raise _invalid()
        content = jwt.decode(
            token,
            key.key,
            algorithms=[key.algorithm],
            audience=claims.audience,
            issuer=claims.issuer,
            leeway=claims.leeway,
            options={"require": ["exp", "iss", "aud"]},
        )
    except jwt.ExpiredSignatureError as error:
        raise Unauthenticated("CREDENTIALS_EXPIRED", "the token has expired") from error
    except (jwt.PyJWTError, ValueError, TypeError, RecursionError) as error:
        raise _invalid() from error
    named = content.get(claims.rights_claim)
    words = named.split() if isinstance(named, str) else named if isinstance(named, list) else ()
    rights = frozenset(word for word in words if isinstance(word, str)) & RIGHTS
    return Verified(rights, float(content["exp"]) + claims.leeway)


def _invalid() -> Unauthenticated:
    return Unauthenticated("CREDENTIALS_INVALID", "the token is not valid here")
