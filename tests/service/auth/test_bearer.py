"""The check of one RPC, by tokens and by signatures."""

import hashlib
import time
from pathlib import Path
from typing import Any

import pytest

from service.auth import keys as keys_module
from service.auth.bearer import Bearer
from service.auth.keys import Claims, read_keys
from service.auth.tokens import entry, read_tokens
from service.errors import PermissionDenied, ServiceError, Unauthenticated
from service.reread import Reread
from tests.service.auth.issuer import AUDIENCE, ISSUER, SigningKey, write_keys
from tests.service.transport.served import Records

INFER, READ = "vae.v1.VaeService/Sample", "vae.v1.ModelService/ListModels"
ADMIN = "inference.GRPCInferenceService/RepositoryModelLoad"
OPEN = "grpc.health.v1.Health/Check"


class Setting:
    """A Bearer on files that a test may change, and on clocks that it may turn."""

    def __init__(self, folder: Path) -> None:
        self.records = Records()
        self.now, self.passed = time.time(), 0.0
        self.tokens, self.keys = folder / "tokens.toml", folder / "keys.json"
        self.tokens.touch(0o600)
        self.tokens.write_text(entry("app", "secret", ["infer"]))
        self.key = SigningKey("EdDSA", "first")
        write_keys(self.keys, self.key.public())
        log: Any = self.records
        self.check = Bearer(
            Reread((self.tokens,), lambda: read_tokens(self.tokens), log, lambda: self.passed),
            Reread((self.keys,), lambda: read_keys(self.keys), log, lambda: self.passed),
            Claims(ISSUER, AUDIENCE, "scope", leeway=10.0),
            lambda: self.now,
        )

    def outcome(self, *values: str, path: str = INFER) -> str:
        """ "" if the RPC may run, else why not."""
        try:
            self.check(path, [("authorization", value) for value in values])
        except Unauthenticated as error:
            return error.reason
        except PermissionDenied as error:
            return error.right
        return ""


@pytest.fixture
def setting(tmp_path: Path) -> Setting:
    return Setting(tmp_path)


def test_a_token_of_the_file_is_known(setting: Setting) -> None:
    assert setting.outcome("Bearer secret") == ""
    assert setting.outcome("bearer secret") == ""


def test_bytes_of_metadata_are_read_as_well(setting: Setting) -> None:
    setting.check(INFER, [(b"te", b"trailers"), (b"authorization", b"Bearer secret")])


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ([], "CREDENTIALS_MISSING"),
        ([""], "CREDENTIALS_MALFORMED"),
        (["secret"], "CREDENTIALS_MALFORMED"),
        (["Bearer"], "CREDENTIALS_MALFORMED"),
        (["Bearer "], "CREDENTIALS_MALFORMED"),
        (["Basic secret"], "CREDENTIALS_MALFORMED"),
        (["Bearer secret", "Bearer secret"], "CREDENTIALS_MALFORMED"),
        (["Bearer " + "x" * 8193], "CREDENTIALS_MALFORMED"),
        (["Bearer  secret"], "CREDENTIALS_INVALID"),
        (["Bearer secre"], "CREDENTIALS_INVALID"),
        (["Bearer SECRET"], "CREDENTIALS_INVALID"),
        (["Bearer " + hashlib.sha256(b"secret").hexdigest()], "CREDENTIALS_INVALID"),
        (["Bearer " + "[" * 8000 + ".a.b"], "CREDENTIALS_INVALID"),
    ],
)
def test_other_credentials_are_refused(setting: Setting, values: list[str], reason: str) -> None:
    assert setting.outcome(*values) == reason


def test_everybody_may_ask_for_health(setting: Setting) -> None:
    assert setting.outcome(path=OPEN) == ""
    assert setting.outcome("nonsense", path=OPEN) == ""


@pytest.mark.parametrize(("path", "right"), [(READ, "read"), (ADMIN, "admin")])
def test_a_right_that_is_lacking_is_named(setting: Setting, path: str, right: str) -> None:
    assert setting.outcome("Bearer secret", path=path) == right
    assert setting.outcome(f"Bearer {setting.key.sign()}", path=path) == right
    setting.tokens.write_text(entry("app", "secret", [right]))
    setting.passed += 2
    assert setting.outcome("Bearer secret", path=path) == ""
    assert setting.outcome("Bearer secret") == "infer"


def test_an_error_says_nothing_of_the_token_that_was_shown(setting: Setting) -> None:
    with pytest.raises(ServiceError) as caught:
        setting.check(INFER, [("authorization", "Bearer hunter2")])
    assert "hunter2" not in str(caught.value)


def test_a_token_expires(setting: Setting) -> None:
    setting.tokens.write_text(
        entry("app", "secret", ["infer"]) + "expires = 2100-01-01T00:00:00Z\n"
    )
    setting.passed += 2
    assert setting.outcome("Bearer secret") == ""
    setting.now += 200 * 365 * 86400
    assert setting.outcome("Bearer secret") == "CREDENTIALS_EXPIRED"


def test_a_token_that_left_the_file_is_refused(setting: Setting) -> None:
    setting.tokens.write_text(entry("app", "other", ["infer"]))
    assert setting.outcome("Bearer secret") == ""  # the file is looked at once a second
    setting.passed += 2
    assert setting.outcome("Bearer secret") == "CREDENTIALS_INVALID"
    assert setting.outcome("Bearer other") == ""


@pytest.mark.parametrize("fault", ["text", "mode", "gone"])
def test_a_file_that_breaks_leaves_the_old_tokens_and_one_complaint(
    setting: Setting, fault: str
) -> None:
    if fault == "text":
        setting.tokens.write_text("[token")
    elif fault == "mode":
        setting.tokens.chmod(0o644)
    else:
        setting.tokens.unlink()
    for _ in range(3):
        setting.passed += 2
        assert setting.outcome("Bearer secret") == ""
    assert setting.records.errors == ["file_not_reloaded"]


def test_a_signed_token_is_verified_once(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    token = f"Bearer {setting.key.sign()}"
    assert setting.outcome(token) == ""
    monkeypatch.setattr(keys_module.jwt, "decode", None)
    assert setting.outcome(token) == ""


def test_a_signed_token_expires_though_it_was_verified(setting: Setting) -> None:
    token = f"Bearer {setting.key.sign()}"
    assert setting.outcome(token) == ""
    setting.now += 3600 + 9
    assert setting.outcome(token) == ""  # within the leeway
    setting.now += 2
    assert setting.outcome(token) == "CREDENTIALS_EXPIRED"


def test_a_withdrawn_key_makes_its_tokens_invalid(setting: Setting) -> None:
    token, following = f"Bearer {setting.key.sign()}", SigningKey("ES256", "second")
    assert setting.outcome(token) == ""
    write_keys(setting.keys, setting.key.public(), following.public())
    setting.passed += 2
    assert setting.outcome(token) == ""
    assert setting.outcome(f"Bearer {following.sign()}") == ""
    write_keys(setting.keys, following.public())
    setting.passed += 2
    assert setting.outcome(token) == "CREDENTIALS_INVALID"


def test_verified_tokens_do_not_fill_the_memory(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.auth.bearer._REMEMBERED", 2)
    for number in range(5):
        assert setting.outcome(f"Bearer {setting.key.sign(jti=str(number))}") == ""
    assert len(setting.check._verified) == 2
