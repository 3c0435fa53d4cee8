"""What a failed RPC says to its caller, and what to the log."""

import json

import grpc
import pytest

from service.errors import InvalidRequest
from service.logs import make_logger
from service.transport import failure


def test_a_defect_is_logged_with_the_id_of_its_request_and_not_told(
    capsys: pytest.CaptureFixture[str],
) -> None:
    try:
        raise RuntimeError("password hunter2 in /etc/secret")
    except RuntimeError as error:
        code, text, details = failure(error, "S/M", make_logger(), "the-id")
    assert code is grpc.StatusCode.INTERNAL
    assert "hunter2" not in text
    assert b"hunter2" not in details
    event = json.loads(capsys.readouterr().err)
    assert (event["event"], event["method"]) == ("request_failed", "S/M")
    assert event["request_id"] == "the-id"
    assert "hunter2" in event["exception"]


def test_a_bad_request_is_logged_for_who_looks_closely(capsys: pytest.CaptureFixture[str]) -> None:
    error = InvalidRequest("field", "expected another")
    failure(error, "S/M", make_logger("info"), "the-id")
    assert capsys.readouterr().err == ""
    failure(error, "S/M", make_logger("debug"), "the-id")
    event = json.loads(capsys.readouterr().err)
    assert (event["event"], event["request_id"]) == ("request_refused", "the-id")
