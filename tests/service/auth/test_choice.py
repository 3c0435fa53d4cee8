"""The check that settings ask for, or what is wrong with them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from service.auth.choice import make_authorize
from service.auth.tokens import entry
from service.settings import SettingsError, read_settings
from tests.service.auth.issuer import SigningKey, write_keys
from tests.service.transport.served import Records


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "tokens.toml").touch(0o600)
    (tmp_path / "tokens.toml").write_text(entry("app", "secret", ["infer"]))
    write_keys(tmp_path / "keys.json", SigningKey("EdDSA", "a").public())
    return tmp_path


def made(*options: str) -> Any:
    log: Any = Records()
    return make_authorize(read_settings(["--repository", "models", *options], {}), log)


def test_without_tokens_and_keys_nothing_is_checked() -> None:
    assert made() is None


def test_with_either_every_call_is_checked(folder: Path) -> None:
    assert made("--tokens", f"{folder}/tokens.toml") is not None
    keys = ["--jwt-keys", f"{folder}/keys.json"]
    assert made(*keys, "--jwt-issuer", "i", "--jwt-audience", "a") is not None


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--tokens", "FOLDER/none"], "No such file"),
        (["--tokens", "FOLDER/empty"], "empty holds no token"),
        (["--tokens", "FOLDER/open"], "chmod o-r"),
        (["--tokens", "FOLDER/keys.json"], "everybody|TOML"),
        (["--jwt-keys", "FOLDER/keys.json"], "needs --jwt-issuer and --jwt-audience"),
        (["--jwt-keys", "FOLDER/keys.json", "--jwt-issuer", "i"], "needs --jwt-issuer"),
        (
            ["--jwt-keys", "FOLDER/tokens.toml", "--jwt-issuer", "i", "--jwt-audience", "a"],
            "list of keys",
        ),
    ],
)
def test_files_that_cannot_be_used_are_an_error_at_start(
    folder: Path, options: Sequence[str], expected: str
) -> None:
    (folder / "open").write_text(entry("app", "secret", ["infer"]))
    (folder / "open").chmod(0o644)
    (folder / "empty").touch(0o600)
    with pytest.raises(SettingsError, match=expected):
        made(*(option.replace("FOLDER", str(folder)) for option in options))


@pytest.mark.parametrize(
    ("option", "value"),
    [("--trace-endpoint", "collector:4318"), ("--trace-ratio", "2"), ("--jwt-leeway", "-1")],
)
def test_values_that_cannot_be_are_an_error_at_start(option: str, value: str) -> None:
    with pytest.raises(SettingsError, match=option):
        read_settings(["--repository", "models", option, value], {})
