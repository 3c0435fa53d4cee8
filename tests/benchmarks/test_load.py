"""What a load reports."""

import json
import math
from collections import Counter

import pytest

from benchmarks.errors import BenchmarkError
from benchmarks.http2 import Method
from benchmarks.load import Load, run_load, summarize
from benchmarks.loops import Tally


def test_only_answers_that_are_right_count_as_throughput() -> None:
    tally = Tally([0.001] * 90, Counter(OK=90, WRONG_SIZE=6, UNAVAILABLE=4), seconds=2.0)

    report = summarize(tally, client_cpu=0.01)

    assert report.requests == 100
    assert report.requests_per_second == 45
    assert report.errors == {"UNAVAILABLE": 4, "WRONG_SIZE": 6}
    assert report.client_cpu_us == pytest.approx(100)


def test_a_percentile_that_has_not_ended_is_none_and_json_can_say_so() -> None:
    tally = Tally([0.001] * 95 + [math.inf] * 5, Counter(OK=95, UNFINISHED=5), seconds=1.0)

    report = summarize(tally, client_cpu=0.0)

    assert (report.p50_ms, report.p90_ms, report.p99_ms) == (1.0, 1.0, None)
    json.dumps(vars(report), allow_nan=False)


def test_a_load_is_either_closed_or_open() -> None:
    for wrong in ({}, {"concurrency": 1, "rate": 1.0}):
        with pytest.raises(ValueError, match="either a concurrency or a rate"):
            Load(**wrong)  # type: ignore[arg-type]


def test_a_server_that_is_not_there_is_said_plainly() -> None:
    method = Method("/test.Service/Call", b"", (0, 0))

    seen: list[int] = []

    with pytest.raises(BenchmarkError, match="refused"):
        run_load(
            "127.0.0.1:9",
            method,
            Load(concurrency=1, warmup=0.0, duration=0.1),
            lambda process: seen.append(process.pid),
        )

    assert len(seen) == 1  # whoever wants to look at the generator can
