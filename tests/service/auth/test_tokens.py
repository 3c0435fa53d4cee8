"""The file of hashed tokens, and the command that makes its entries."""

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest

from service.auth.tokens import Token, entry, find, new_token, read_tokens

DIGEST = hashlib.sha256(b"secret").hexdigest()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "tokens.toml"
    path.touch(0o600)
    return path


def test_an_entry_is_read_as_it_was_made(file: Path) -> None:
    file.write_text(entry("app", "secret", ["read", "infer"]) + entry("ops", "other", ["admin"]))
    first, second = read_tokens(file)
    assert first == Token("app", hashlib.sha256(b"secret").digest(), frozenset({"infer", "read"}))
    assert second.rights == {"admin"}


def test_an_entry_does_not_hold_its_token() -> None:
    token = new_token()
    assert token not in entry("app", token, ["infer"])


def test_an_entry_may_expire(file: Path) -> None:
    file.write_text(entry("app", "secret", ["infer"]) + "expires = 1970-01-01T01:00:00Z\n")
    assert read_tokens(file)[0].expires == 3600


def test_tokens_are_found_by_their_digests() -> None:
    tokens = [Token(name, hashlib.sha256(name.encode()).digest(), frozenset()) for name in "abc"]
    assert find(tokens, hashlib.sha256(b"b").digest()) is tokens[1]
    assert find(tokens, hashlib.sha256(b"d").digest()) is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("token = [", "no TOML"),
        ("other = 1", "tables"),
        ("token = 1", "tables"),
        (f'[token.app]\nsha256 = "{DIGEST}"\n', "rights: expected a list"),
        (f'[token.app]\nsha256 = "{DIGEST}"\nrights = []\n', "expected some of admin, infer"),
        (f'[token.app]\nsha256 = "{DIGEST}"\nrights = ["write"]\n', "expected some of admin"),
        (f'[token."a b"]\nsha256 = "{DIGEST}"\nrights = ["read"]\n', "expected a name"),
        ('[token.app]\nsha256 = "secret"\nrights = ["read"]\n', "64 lower-case hex digits"),
        (f'[token.app]\nsha256 = "{DIGEST}"\nrights = ["read"]\nright = 1\n', "only"),
        (f'[token.app]\nsha256 = "{DIGEST}"\nrights = ["read"]\nexpires = 1\n', "with its zone"),
    ],
)
def test_a_file_that_cannot_be_used_says_why(file: Path, text: str, expected: str) -> None:
    file.write_text(text)
    with pytest.raises(ValueError, match=expected):
        read_tokens(file)


def test_a_file_that_everybody_can_read_is_refused(file: Path) -> None:
    file.write_text(entry("app", "secret", ["infer"]))
    file.chmod(0o644)
    with pytest.raises(ValueError, match="chmod o-r"):
        read_tokens(file)


def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "service.auth", "new", *arguments],
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_command_prints_a_token_and_its_entry(file: Path) -> None:
    done = run("app", "--rights", "infer,read")
    file.write_text(done.stdout)
    [made] = read_tokens(file)
    token = done.stderr.split()[-1]
    assert made == Token("app", hashlib.sha256(token.encode()).digest(), made.rights)
    assert made.rights == {"infer", "read"}
    assert len(token) >= 43


@pytest.mark.parametrize("arguments", [("a b", "--rights", "infer"), ("app", "--rights", "all")])
def test_the_command_refuses_what_the_file_may_not_hold(arguments: tuple[str, ...]) -> None:
    done = run(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: expected") or "rights: expected" in done.stderr
