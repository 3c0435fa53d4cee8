"""Start-up and memory: servers that are started for one measurement, alone on the machine."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace

from benchmarks.http2 import Method
from benchmarks.load import Load, run_load
from benchmarks.records import Record, Subject
from benchmarks.servers import Server

Start = Callable[[], AbstractContextManager[Server]]
_CALLERS = 64
_MIB = 2**20
_MOST_SECONDS = 300.0


def start_up(start: Start, model: str, number: int) -> Record:
    """Goal 6: seconds from exec until the server says that it is ready, its model loaded."""
    with start() as server:
        subject = Subject("6 start-up", model, "", "", server.name)
        return Record(subject, number, {"start-up s": server.start_seconds}, {})


def memory(start: Start, method: Method, model: str, requests: int) -> Record:
    """Goal 6: resident memory after a tenth of the requests, and how much the rest adds.

    The first tenth fills arenas, pools and caches. Ends early where it takes longer than minutes.
    """
    with start() as server:
        load = Load(concurrency=_CALLERS, warmup=0.0, duration=_MOST_SECONDS, watch=server.pid)
        tenth = requests // 10
        first = run_load(server.target, method, replace(load, requests=tenth))
        rest = run_load(server.target, method, replace(load, requests=requests - tenth))
        assert first.resident_after is not None
        assert rest.resident_after is not None
        subject = Subject("6 memory", model, f"{requests:,} requests", "load", server.name)
        metrics = {
            "resident MiB": rest.resident_after / _MIB,
            "growth MiB": (rest.resident_after - first.resident_after) / _MIB,
            "requests": float(first.requests + rest.requests),
        }
        return Record(subject, 0, metrics, {**first.errors, **rest.errors})
