"""When a failed call is made again."""

import grpc
import pytest

from vae_client.errors import VaeError
from vae_client.repeats import Repeats

FULL = grpc.StatusCode.RESOURCE_EXHAUSTED


def failure(delay: float | None, code: grpc.StatusCode = FULL) -> VaeError:
    return VaeError(code, "no room", retry_delay=delay)


@pytest.mark.parametrize("code", [FULL, grpc.StatusCode.UNAVAILABLE])
def test_a_call_is_repeated_no_earlier_than_it_was_told(code: grpc.StatusCode) -> None:
    waits = [Repeats(60.0).wait(failure(0.2, code)) for _ in range(100)]

    assert all(wait is not None and 0.2 <= wait <= 0.3 for wait in waits)


def test_callers_who_were_told_the_same_do_not_come_back_together() -> None:
    assert len({Repeats(60.0).wait(failure(0.0)) for _ in range(100)}) > 50


@pytest.mark.parametrize(
    "error",
    [
        failure(None),
        failure(None, grpc.StatusCode.UNAVAILABLE),  # gRPC has repeated it already
        failure(1.0, grpc.StatusCode.INVALID_ARGUMENT),
        failure(5.1),
    ],
)
def test_what_would_fail_again_or_last_long_is_not_repeated(error: VaeError) -> None:
    assert Repeats(60.0).wait(error) is None


def test_a_call_is_repeated_three_times() -> None:
    repeats = Repeats(60.0)

    waits = [repeats.wait(failure(0.0)) for _ in range(4)]

    assert [wait is None for wait in waits] == [False, False, False, True]


def test_nobody_waits_beyond_the_deadline() -> None:
    now = 100.0
    repeats = Repeats(2.0, lambda: now)

    assert repeats.wait(failure(1.0)) is not None
    now = 101.5
    assert repeats.remaining == pytest.approx(0.5)
    assert repeats.wait(failure(0.6)) is None
    now = 103.0
    assert repeats.remaining == 0.0


def test_a_stream_whose_status_was_lost_goes_on_but_a_failure_of_the_service_ends_it() -> None:
    lost = VaeError(grpc.StatusCode.INTERNAL, "Internal error from Core")
    failed = VaeError(grpc.StatusCode.INTERNAL, "the request failed")

    assert Repeats(60.0).wait(lost, unasked=True) is not None
    assert Repeats(60.0).wait(failed, unasked=True) is None
    assert Repeats(60.0).wait(lost) is None
