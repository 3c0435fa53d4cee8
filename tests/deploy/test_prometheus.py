"""Prometheus itself reads the rules, scrapes the service and fires. `make test-deploy`."""

import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

from scripts.launch import running_service
from tests.deploy.alertmanager import running_alertmanager
from tests.deploy.metric_names import MONITORING, queries
from vae_client import VaeClient, VaeError

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


def test_prometheus_scrapes_the_service_and_fires_when_it_is_overloaded_and_when_it_dies(
    digits_repository: Path, tmp_path: Path
) -> None:
    with (
        running_alertmanager() as alertmanager,
        running_service(digits_repository, "--max-queue-items", "8") as service,
    ):
        target = re.sub(r"^http://(.*)/metrics$", r"\1", service.metrics_url)
        with prometheus(tmp_path, target, alertmanager.address):
            with VaeClient(service.target) as client, pytest.raises(VaeError, match="QUEUE_FULL"):
                client.sample("digits", 64, seed=1)
            refused = alertmanager.wait_for("VaeRejections")
            assert refused["labels"]["reason"] == "queue_full"
            assert refused["labels"]["model"] == "digits"
            service.stop()
            assert alertmanager.wait_for("VaeDown")["labels"]["instance"] == target
            alertmanager.wait_for("VaeNoReplica")
