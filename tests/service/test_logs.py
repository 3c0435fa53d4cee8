"""Logs: one JSON object a line on standard error."""

import json
import logging
from datetime import UTC, datetime
from typing import Any

import pytest

from service.logs import adopt_libraries, make_logger


def read(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    captured = capsys.readouterr()
    assert captured.out == ""
    return [json.loads(line) for line in captured.err.splitlines()]


def test_an_event_is_one_json_object_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    log = make_logger()
    log.info("listening", port=8500)
    log.warning("model\nloaded", model="models/digits/versions/1")
    first, second = read(capsys)
    assert (first["event"], first["level"], first["port"]) == ("listening", "info", 8500)
    assert (second["event"], second["level"]) == ("model\nloaded", "warning")


def test_an_event_has_its_time_in_utc(capsys: pytest.CaptureFixture[str]) -> None:
    make_logger().info("ready")
    [event] = read(capsys)
    assert datetime.fromisoformat(event["timestamp"]).tzinfo == UTC


@pytest.mark.parametrize(
    ("level", "events"),
    [
        ("debug", ["debug", "info", "warning", "error"]),
        ("info", ["info", "warning", "error"]),
        ("warning", ["warning", "error"]),
        ("error", ["error"]),
    ],
)
def test_events_below_the_level_are_left_out(
    level: str, events: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    log = make_logger(level)
    for name in ("debug", "info", "warning", "error"):
        getattr(log, name)(name)
    assert [event["event"] for event in read(capsys)] == events


def test_an_exception_is_written_with_its_cause_on_the_same_line(
    capsys: pytest.CaptureFixture[str],
) -> None:
    error = RuntimeError("the request failed")
    error.__cause__ = ValueError("node 17")
    make_logger().error("request_failed", exc_info=error)
    [event] = read(capsys)
    assert "ValueError: node 17" in event["exception"]
    assert "RuntimeError: the request failed" in event["exception"]


def test_a_value_that_json_does_not_know_does_not_fail_the_caller(
    capsys: pytest.CaptureFixture[str],
) -> None:
    make_logger().info("odd", value=object)
    assert read(capsys)[0]["value"] == repr(object)


def test_loggers_do_not_change_each_other(capsys: pytest.CaptureFixture[str]) -> None:
    quiet, loud = make_logger("error"), make_logger("debug")
    quiet.info("left out")
    loud.debug("kept")
    assert [event["event"] for event in read(capsys)] == ["kept"]


def test_warnings_of_libraries_are_events_too(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    adopt_libraries(make_logger())
    library = logging.getLogger("some.library")
    library.info("of no interest")
    library.warning("cannot reach %s", "it")
    try:
        raise ValueError("why")
    except ValueError:
        library.exception("failed")
    warned, failed = read(capsys)
    assert (warned["event"], warned["level"]) == ("library_warning", "warning")
    assert (warned["library"], warned["text"]) == ("some.library", "cannot reach it")
    assert failed["level"] == "error"
    assert "ValueError: why" in failed["exception"]
