"""Service processes on addresses of their own behind one name, and load on it."""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from scripts.launch import ServiceProcess, running_service
from tests.fleet.load import Outcome, Report
from tests.fleet.names import NameServer

SECONDS = 60.0
# Short, so that streams are cut and connections made anew while the load runs.
OPTIONS = ("--drain-timeout", "2", "--max-connection-age", "15")
POLL = ("--model-control", "poll", "--repository-poll-seconds", "0.5")
PUBLIC = ("127.0.0.3", "127.0.0.6")  # one in three is served by grpc's own transport


@dataclass
class Fleet:
    """Replicas by their addresses. Clients find those in `names.addresses`."""

    repository: Path
    names: NameServer
    port: int = 0
    replicas: dict[str, ServiceProcess] = field(default_factory=dict)
    log: list[str] = field(default_factory=list)
    _stacks: dict[str, contextlib.ExitStack] = field(default_factory=dict)

    @property
    def target(self) -> str:
        """Where clients call."""
        return f"dns://{self.names.authority}/vae.test:{self.port}"

    def start(self, address: str, within: Sequence[str] = ()) -> ServiceProcess:
        """Starts a replica and waits until it is ready; the name does not lead to it yet.

        within: a command that runs another on the host that has the address.
        """
        stack = contextlib.ExitStack()
        replica = stack.enter_context(
            running_service(
                self.repository,
                *OPTIONS,
                *POLL,
                "--transport",
                "public" if address in PUBLIC else "http2",
                echo=self.log.append,
                listen=f"{address}:{self.port}",
                within=within,
            )
        )
        self.port = int(replica.target.rpartition(":")[2])
        self.replicas[address], self._stacks[address] = replica, stack
        return replica

    def stop(self, address: str) -> int:
        """Drains a replica, and returns its exit code."""
        code = self.replicas.pop(address).stop()
        self._stacks.pop(address).close()
        return code

    def kill(self, address: str) -> None:
        """Ends a replica with SIGKILL."""
        self.replicas.pop(address)
        self._stacks.pop(address).close()

    def freeze(self, address: str) -> None:
        """Stops a replica's process: its host takes what is sent, and nothing comes from it."""
        process = self.replicas[address].process
        process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)

    def thaw(self, address: str) -> None:
        """Lets a replica's process go on."""
        self.replicas[address].process.send_signal(signal.SIGCONT)

    def stop_all(self) -> None:
        """Ends every replica."""
        for address in list(self.replicas):
            self.kill(address)

    def publish(self, version: int) -> None:
        """Puts the same as version 1 into the repository again, as a later version."""
        folder = self.repository / "digits"
        with tempfile.TemporaryDirectory(dir=self.repository, prefix=".") as staging:
            written = Path(staging) / str(version)
            shutil.copytree(folder / "1", written)
            manifest = written / "manifest.json"
            values = json.loads(manifest.read_text()) | {"version": version}
            manifest.write_text(json.dumps(values))
            written.rename(folder / str(version))

    def serve(self, version: int) -> bool:
        """Whether every replica has a version."""
        info = re.compile(rf'vae_model_info{{.*version="{version}".*}} 1')
        return all(info.search(replica.scrape()) for replica in self.replicas.values())

    def answered(self) -> dict[str, dict[str, float]]:
        """How many calls of VaeService each replica has answered, by address and status code."""
        return {address: _answered(replica) for address, replica in self.replicas.items()}

    def connections(self, address: str) -> float:
        """How many connections a replica has, which its own transport alone counts."""
        [family] = (
            family
            for family in text_string_to_metric_families(self.replicas[address].scrape())
            if family.name == "vae_connections"
        )
        return family.samples[0].value


def _answered(replica: ServiceProcess) -> dict[str, float]:
    codes: dict[str, float] = {"OK": 0.0}
    for family in text_string_to_metric_families(replica.scrape()):
        for sample in family.samples:
            unary = sample.labels.get("method", "") in (
                "vae.v1.VaeService/Sample",
                "vae.v1.VaeService/Encode",
                "vae.v1.VaeService/Decode",
            )
            if sample.name == "vae_requests_total" and unary:
                code = sample.labels["code"]
                codes[code] = codes.get(code, 0.0) + sample.value
    return codes


class Load:
    """A running load; `report` once the block has ended."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self.report = Report()
        self._process = process

    def last(self, seconds: float) -> None:
        """Lets it run on."""
        threading.Event().wait(seconds)

    def finish(self) -> None:
        """Ends it and reads what became of it."""
        out, _ = self._process.communicate(timeout=SECONDS)
        values = json.loads(out)
        calls = [Outcome(**outcome) for outcome in values.pop("calls")]
        self.report = Report(calls, **values)


@contextlib.contextmanager
def loading(target: str, rate: float = 30.0) -> Iterator[Load]:
    """Loads a target from a process of its own until the block ends."""
    command = [sys.executable, "-m", "tests.fleet.load", target, str(rate)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "loading\n"
            load = Load(process)
            yield load
            load.finish()
        finally:
            process.kill()


def wait_until(condition: Callable[[], bool]) -> None:
    """Looks again and again. Raises TimeoutError when it takes too long."""
    deadline = time.monotonic() + SECONDS
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError("it has not happened")
        time.sleep(0.05)
