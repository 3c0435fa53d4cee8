"""This checkout's service beside another checkout's: what a change costs or gains for a request.

Both serve the same files to the same client in turns, so that what else the machine does hits both.
"""

import tempfile
from contextlib import ExitStack
from pathlib import Path

from benchmarks.errors import BenchmarkError
from benchmarks.load import Load
from benchmarks.messages import decode, infer
from benchmarks.models import MLP, build_repository
from benchmarks.runner import Results
from benchmarks.scenarios import BATCH, BATCHED_CALLERS, CALLERS, Case, Plan, load_case
from benchmarks.servers import running

_OPTIONS = ("--threads", "1")
_APIS = {"Decode": decode, "ModelInfer": infer}


def compare(other: Path, plan: Plan) -> Results:
    """One-item and batched requests to both. Raises BenchmarkError if `other` is no checkout."""
    if not (other / "service" / "__main__.py").is_file():
        raise BenchmarkError(f"{other}: expected another checkout of this project")
    results = Results()
    with tempfile.TemporaryDirectory(prefix="models-") as folder, ExitStack() as stack:
        build_repository(Path(folder), [MLP])
        servers = [
            stack.enter_context(running(Path(folder), _OPTIONS, checkout))
            for checkout in (None, other)
        ]
        loads = [(1, f"{callers} callers", Load(concurrency=callers)) for callers in CALLERS]
        loads.append((BATCH, f"{BATCH}-item requests", Load(concurrency=BATCHED_CALLERS)))
        cases: list[Case] = [
            load_case(api, plan, MLP, items, name, load, (server, api, make))
            for items, name, load in loads
            for api, make in _APIS.items()
            for server in servers
        ]
        results.run(cases, plan.rounds)
    return results
