"""JSON Web Tokens: what is signed, by whom and for how long."""

import base64
import json
import time
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from jwt.algorithms import RSAAlgorithm

from service.auth.keys import Claims, Key, read_keys, verify
from service.errors import Unauthenticated
from tests.service.auth.issuer import AUDIENCE, ISSUER, SigningKey, content, write_keys

CLAIMS = Claims(ISSUER, AUDIENCE, "scope", leeway=10.0)


@pytest.fixture(scope="module")
def signing() -> dict[str, SigningKey]:
    return {name: SigningKey(name, f"key-{name}") for name in ("RS256", "ES256", "EdDSA")}


@pytest.fixture
def keys(signing: dict[str, SigningKey], tmp_path: Path) -> dict[str, Key]:
    write_keys(tmp_path / "keys.json", *(key.public() for key in signing.values()))
    return dict(read_keys(tmp_path / "keys.json"))


def reason(token: str, keys: dict[str, Key]) -> str:
    with pytest.raises(Unauthenticated) as caught:
        verify(token, keys, CLAIMS)
    return caught.value.reason


@pytest.mark.parametrize("algorithm", ["RS256", "ES256", "EdDSA"])
def test_a_signed_token_gives_the_rights_that_it_names(
    signing: dict[str, SigningKey], keys: dict[str, Key], algorithm: str
) -> None:
    verified = verify(signing[algorithm].sign(scope="openid infer read"), keys, CLAIMS)
    assert verified.rights == {"infer", "read"}


@pytest.mark.parametrize(
    ("scope", "rights"),
    [
        (["admin", "other", 7], {"admin"}),
        ("", set()),
        (None, set()),
        ({"infer": True}, set()),
        (7, set()),
    ],
)
def test_rights_are_read_from_a_list_too_and_from_nothing_else(
    signing: dict[str, SigningKey], keys: dict[str, Key], scope: Any, rights: set[str]
) -> None:
    assert verify(signing["EdDSA"].sign(scope=scope), keys, CLAIMS).rights == rights


@pytest.mark.parametrize(
    ("claims", "expected"),
    [
        ({"aud": "other"}, "CREDENTIALS_INVALID"),
        ({"aud": None}, "CREDENTIALS_INVALID"),
        ({"iss": "https://other.test"}, "CREDENTIALS_INVALID"),
        ({"iss": None}, "CREDENTIALS_INVALID"),
        ({"exp": None}, "CREDENTIALS_INVALID"),
        ({"exp": "soon"}, "CREDENTIALS_INVALID"),
        ({"exp": time.time() - 60}, "CREDENTIALS_EXPIRED"),
        ({"nbf": time.time() + 3600}, "CREDENTIALS_INVALID"),
    ],
)
def test_a_claim_that_does_not_hold_refuses_the_token(
    signing: dict[str, SigningKey], keys: dict[str, Key], claims: dict[str, Any], expected: str
) -> None:
    assert reason(signing["EdDSA"].sign(**claims), keys) == expected


def test_clocks_may_differ_by_the_leeway(
    signing: dict[str, SigningKey], keys: dict[str, Key]
) -> None:
    token = signing["EdDSA"].sign(exp=time.time() - 3, nbf=time.time() + 5)
    assert verify(token, keys, CLAIMS).rights == {"infer"}


def test_an_unsigned_token_is_refused(keys: dict[str, Key]) -> None:
    token = jwt.encode(content(), None, "none", headers={"kid": "key-RS256"})
    assert reason(token, keys) == "CREDENTIALS_INVALID"


def test_a_public_key_is_no_secret_for_hs256(
    signing: dict[str, SigningKey], keys: dict[str, Key]
) -> None:
    public = (
        signing["RS256"]
        .private.public_key()
        .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    # The library does not sign with such a secret, so the parts are put together here.
    head = encoded({"alg": "HS256", "typ": "JWT", "kid": "key-RS256"})
    body = f"{head}.{encoded(content())}"
    signature = jwt.get_algorithm_by_name("HS256").sign(body.encode(), public)
    token = f"{body}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}"
    assert reason(token, keys) == "CREDENTIALS_INVALID"


def encoded(fields: dict[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(fields).encode()).rstrip(b"=").decode()


def test_another_key_of_the_same_name_is_refused(keys: dict[str, Key]) -> None:
    assert reason(SigningKey("EdDSA", "key-EdDSA").sign(), keys) == "CREDENTIALS_INVALID"


def test_a_key_verifies_no_other_algorithm_than_its_own(
    signing: dict[str, SigningKey], keys: dict[str, Key]
) -> None:
    token = jwt.encode(content(), signing["RS256"].private, "RS512", headers={"kid": "key-RS256"})
    assert reason(token, keys) == "CREDENTIALS_INVALID"


@pytest.mark.parametrize("kid", ["key-ES256", "unknown", ""])
def test_a_token_names_the_key_that_signed_it(
    signing: dict[str, SigningKey], keys: dict[str, Key], kid: str
) -> None:
    token = jwt.encode(content(), signing["EdDSA"].private, "EdDSA", headers={"kid": kid})
    assert reason(token, keys) == "CREDENTIALS_INVALID"


def test_a_changed_token_is_refused(signing: dict[str, SigningKey], keys: dict[str, Key]) -> None:
    head, _, signature = signing["EdDSA"].sign(scope="infer").split(".")
    token = f"{head}.{encoded(content(scope='admin'))}.{signature}"
    assert reason(token, keys) == "CREDENTIALS_INVALID"


@pytest.mark.parametrize(
    "token", ["a", "a.b.c", "..", "é.b.c", f"{encoded({'kid': ['x']})}.b.c", "e30.e30.e30"]
)
def test_what_is_no_token_is_refused(keys: dict[str, Key], token: str) -> None:
    assert reason(token, keys) == "CREDENTIALS_INVALID"


def test_a_token_without_a_kid_is_of_the_only_key(tmp_path: Path) -> None:
    only = SigningKey("EdDSA", "")
    fields = only.public()
    del fields["kid"]
    write_keys(tmp_path / "keys.json", fields)
    token = jwt.encode(content(), only.private, "EdDSA")
    assert verify(token, read_keys(tmp_path / "keys.json"), CLAIMS).rights == {"infer"}


def small_key() -> dict[str, Any]:
    public = rsa.generate_private_key(65537, 1024).public_key()  # noqa: S505 - to be refused
    return dict(RSAAlgorithm.to_jwk(public, as_dict=True))


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ([], "at least one key"),
        (["text"], "expected an object"),
        ([{"kty": "oct", "k": "c2VjcmV0"}], "RS256, ES256 or EdDSA"),
        ([{"kty": "EC", "crv": "P-521", "x": "a", "y": "a"}], "RS256, ES256 or EdDSA"),
        ([SigningKey("EdDSA", "a").public(alg="HS256")], "RS256, ES256 or EdDSA"),
        ([SigningKey("EdDSA", "a").public(d="secret")], "this one is private"),
        ([SigningKey("EdDSA", "a").public(), SigningKey("EdDSA", "a").public()], "its own"),
        ([small_key()], "at least 2048 bits"),
    ],
)
def test_a_file_of_keys_that_cannot_be_used_says_why(
    tmp_path: Path, keys: list[Any], expected: str
) -> None:
    write_keys(tmp_path / "keys.json", *keys)
    with pytest.raises(ValueError, match=expected):
        read_keys(tmp_path / "keys.json")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"keys": 3}'])
def test_a_file_without_keys_says_what_was_expected(tmp_path: Path, text: str) -> None:
    (tmp_path / "keys.json").write_text(text)
    with pytest.raises(ValueError, match="expected"):
        read_keys(tmp_path / "keys.json")


def test_keys_for_encryption_are_passed_over(tmp_path: Path) -> None:
    write_keys(
        tmp_path / "keys.json",
        SigningKey("RS256", "a").public(use="enc"),
        SigningKey("EdDSA", "b").public(use="sig"),
    )
    assert set(read_keys(tmp_path / "keys.json")) == {"b"}
