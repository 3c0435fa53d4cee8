"""Prometheus itself reads the rules, scrapes the service and fires. `make test-deploy`."""

import contextlib
import re
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest
import yaml
from vae.v1.vae_service_pb2 import SampleRequest
from vae.v1.vae_service_pb2_grpc import VaeServiceStub

from scripts.launch import running_service
from tests.deploy.alertmanager import running_alertmanager
from tests.deploy.metric_names import MONITORING, queries

# Without Debian's package `prometheus` these fail; they never skip.
pytestmark = pytest.mark.deploy


def promtool(*arguments: str) -> str:
    """What promtool says; an error where it finds one."""
    done = subprocess.run(["promtool", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_rules_do_what_their_own_tests_say() -> None:
    promtool("check", "rules", str(MONITORING / "rules.yaml"))
    assert "SUCCESS" in promtool("test", "rules", str(MONITORING / "rules_test.yaml"))


def test_prometheus_takes_the_scrape_configuration() -> None:
    promtool("check", "config", "--lint-fatal", str(MONITORING / "prometheus.yaml"))


def test_prometheus_can_read_every_query_of_the_dashboard(tmp_path: Path) -> None:
    queried = [{"record": f"query:{i}:x", "expr": query} for i, query in enumerate(queries())]
    file = tmp_path / "queries.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "queries", "rules": queried}]}))
    assert f"{len(queried)} rules found" in promtool("check", "rules", str(file))


@contextmanager
def prometheus(folder: Path, target: str, alertmanager: str) -> Iterator[None]:
    """A Prometheus with our rules that looks every second and waits for nothing."""
    rules = (MONITORING / "rules.yaml").read_text()
    (folder / "rules.yaml").write_text(re.sub(r"for: \d+m", "for: 0s", rules))
    configuration = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": ["rules.yaml"],
        "alerting": {"alertmanagers": [{"static_configs": [{"targets": [alertmanager]}]}]},
        "scrape_configs": [
            {"job_name": "vae-service", "static_configs": [{"targets": [target]}]},
        ],
    }
    (folder / "prometheus.yml").write_text(yaml.safe_dump(configuration))
    command = ["prometheus", f"--config.file={folder / 'prometheus.yml'}"]
    command += [f"--storage.tsdb.path={folder / 'data'}", "--web.listen-address=127.0.0.1:0"]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        try:
            yield
        finally:
            process.terminate()


@contextmanager
def overload(target: str, callers: int = 3) -> Iterator[None]:
    """Callers of a service with place for one: one waits in the queue, the others are refused."""
    stopping = threading.Event()

    def call() -> None:
        request = SampleRequest(model="models/digits", sample_count=1)
        with grpc.insecure_channel(target) as channel:
            stub = VaeServiceStub(channel)
            while not stopping.wait(0.01):
                with contextlib.suppress(grpc.RpcError):  # refused, as is meant
                    stub.Sample(request, timeout=60)

    threads = [threading.Thread(target=call) for _ in range(callers)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stopping.set()
        for thread in threads:
            thread.join()


def test_prometheus_scrapes_the_service_and_fires_when_it_is_overloaded_and_when_it_dies(
    digits_repository: Path, tmp_path: Path
) -> None:
    options = ("--max-queue-items", "1", "--max-queue-delay-ms", "1000")
    with (
        running_alertmanager() as alertmanager,
        running_service(digits_repository, *options) as service,
    ):
        target = re.sub(r"^http://(.*)/metrics$", r"\1", service.metrics_url)
        with prometheus(tmp_path, target, alertmanager.address):
            with overload(service.target):
                refused = alertmanager.wait_for("VaeRejections")
            assert refused["labels"]["reason"] == "queue_full"
            assert refused["labels"]["model"] == "digits"
            service.stop()
            assert alertmanager.wait_for("VaeDown")["labels"]["instance"] == target
            alertmanager.wait_for("VaeNoReplica")
