"""An issuer of tokens for tests: keys, a JWKS file of them, and JWTs that they sign."""

import json
import time
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

ISSUER, AUDIENCE = "https://issuer.test", "vae"
_MAKERS: dict[str, Any] = {
    "RS256": lambda: rsa.generate_private_key(65537, 2048),
    "ES256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "EdDSA": ed25519.Ed25519PrivateKey.generate,
}
_TO_JWK: dict[str, Any] = {"RS256": RSAAlgorithm, "ES256": ECAlgorithm, "EdDSA": OKPAlgorithm}


class SigningKey:
    """A private key of an algorithm."""

    def __init__(self, algorithm: str, kid: str) -> None:
        self.algorithm, self.kid = algorithm, kid
        self.private = _MAKERS[algorithm]()

    def public(self, **changes: Any) -> dict[str, Any]:
        """Its entry in a JWKS file."""
        fields = _TO_JWK[self.algorithm].to_jwk(self.private.public_key(), as_dict=True)
        return dict(fields) | {"kid": self.kid} | changes

    def sign(self, **claims: Any) -> str:
        """A token that is valid but for the claims given; None leaves one out."""
        return jwt.encode(
            content(**claims), self.private, self.algorithm, headers={"kid": self.kid}
        )


def content(**claims: Any) -> dict[str, Any]:
    """The claims of a valid token, but for those given; None leaves one out."""
    valid = {"iss": ISSUER, "aud": AUDIENCE, "exp": time.time() + 3600, "scope": "openid infer"}
    return {name: value for name, value in (valid | claims).items() if value is not None}


def write_keys(path: Path, *keys: dict[str, Any]) -> None:
    """A JWKS file, put in the place of the one before."""
    new = path.with_suffix(".new")
    new.write_text(json.dumps({"keys": keys}))
    new.rename(path)
