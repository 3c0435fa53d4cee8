"""What perf_analyzer writes."""

import json

import pytest

from benchmarks.errors import BenchmarkError
from benchmarks.perf_analyzer import PerfReport, parse_ends, parse_table

TRITON = """\
Concurrency,Inferences/Second,Client Send,Network+Server Send/Recv,Server Queue,\
Server Compute Input,Server Compute Infer,Server Compute Output,Client Recv,\
p50 latency,p90 latency,p95 latency,p99 latency
64,8421.88,1,905,2077,340,1783,2477,0,7191,10549,11895,17948
"""
OTHER = """\
Concurrency,Inferences/Second,Client Send,Network+Server Send/Recv,Client Recv,\
p50 latency,p90 latency,p95 latency,p99 latency
1,2000,2,500,0,388,1576,2925,5065
2,3000,2,500,0,400,1600,3000,6000
"""


def test_a_table_is_read_by_the_names_of_its_columns() -> None:
    assert parse_table(TRITON.splitlines()) == [PerfReport(64, 8421.88, 7.191, 17.948)]
    assert parse_table(OTHER.splitlines()) == [
        PerfReport(1, 2000, 0.388, 5.065),
        PerfReport(2, 3000, 0.4, 6.0),
    ]


def test_a_missing_column_is_named() -> None:
    with pytest.raises(BenchmarkError, match="p99 latency"):
        parse_table(["Concurrency,Inferences/Second,p50 latency", "1,2,3"])


def test_the_ends_of_requests_are_those_of_their_last_response() -> None:
    requests = [
        {"timestamp": 1, "response_timestamps": [30]},
        {"timestamp": 2, "response_timestamps": [10, 20]},
        {"timestamp": 3, "response_timestamps": []},
    ]
    profile = json.dumps({"experiments": [{"experiment": {}, "requests": requests}]})

    assert parse_ends(profile) == [20, 30]
