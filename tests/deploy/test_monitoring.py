"""Rules, runbooks and the dashboard say the same, and name what a running service exposes."""

import re
from pathlib import Path

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from scripts.launch import running_service
from scripts.rendered import one, render
from scripts.wrap_rules import wrapped
from tests.deploy.metric_names import MONITORING, alerts, dashboard, metrics, queries, rules
from vae_client import VaeClient

RUNBOOKS = Path(__file__).parent.parent.parent / "docs" / "runbooks.md"


@pytest.fixture(scope="module")
def exposed(digits_repository: Path) -> set[str]:
    """Names of all series of a service of two processes that has answered a call."""
    with running_service(digits_repository, "--processes", "2") as service:
        service.wait_for_all(2)
        with VaeClient(service.target) as client:
            client.sample("digits", 2, seed=1)
        families = list(text_string_to_metric_families(service.scrape()))
    return {sample.name for family in families for sample in family.samples}


def test_the_reader_of_names_finds_metrics_and_leaves_recorded_series_out() -> None:
    expression = 'vae:a:b5m + rate(vae_failed_total{model="vae"}[5m]) / process_open_fds'
    assert list(metrics(expression)) == ["vae_failed_total", "process_open_fds"]


def test_a_running_service_exposes_every_metric_that_a_rule_names(exposed: set[str]) -> None:
    named = {name for rule in rules() for name in metrics(rule["expr"])}
    assert len(named) > 5
    assert named - exposed == set()


def test_a_running_service_exposes_every_metric_of_the_dashboard(exposed: set[str]) -> None:
    named = {name for query in queries() for name in metrics(query)}
    assert len(named) > 10
    assert named - exposed == set()


def test_every_recorded_series_that_is_read_is_recorded() -> None:
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    texts = [rule["expr"] for rule in rules()] + queries()
    read = {name for text in texts for name in re.findall(r"vae:\w+:\w+", text)}
    assert read == recorded


def test_every_alert_has_a_runbook_a_severity_and_a_summary() -> None:
    titles = re.findall(r"^## (\w+)$", RUNBOOKS.read_text(), re.MULTILINE)
    assert titles == [alert["alert"] for alert in alerts()]
    for alert in alerts():
        notes = alert["annotations"]
        assert notes["runbook_url"] == f"docs/runbooks.md#{alert['alert'].lower()}"
        assert notes["summary"].endswith(".")
        assert alert["labels"]["severity"] in {"page", "ticket"}


def test_on_a_cluster_an_alert_points_to_where_its_runbook_can_be_read() -> None:
    groups = one(render("overlays/cpu"), "PrometheusRule")["spec"]["groups"]
    urls = [rule["annotations"]["runbook_url"] for rule in groups[-1]["rules"]]
    here = [alert["annotations"]["runbook_url"] for alert in alerts()]
    assert [re.sub(r"^https://.*/(docs/)", r"\1", url) for url in urls] == here
    assert all(url.startswith("https://") for url in urls)


def test_every_link_between_runbooks_leads_to_one() -> None:
    text = RUNBOOKS.read_text()
    anchors = {title.lower() for title in re.findall(r"^## (\w+)$", text, re.MULTILINE)}
    assert set(re.findall(r"\(#(\w+)\)", text)) <= anchors


def test_every_alert_has_a_test_of_promtool_in_which_it_fires() -> None:
    tests = yaml.safe_load((MONITORING / "rules_test.yaml").read_text())["tests"]
    fired = {
        case["alertname"]
        for test in tests
        for case in test.get("alert_rule_test", [])
        if case["exp_alerts"]
    }
    assert fired == {alert["alert"] for alert in alerts()}


def test_the_operators_rule_is_what_the_rules_say() -> None:
    text = (MONITORING / "prometheusrule.yaml").read_text()
    assert text == wrapped((MONITORING / "rules.yaml").read_text())
    assert yaml.safe_load(text)["spec"] == yaml.safe_load((MONITORING / "rules.yaml").read_text())


def test_no_two_panels_of_the_dashboard_lie_on_each_other() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in dashboard()["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken
        taken |= cells


def test_the_dashboard_asks_only_for_variables_that_it_has() -> None:
    variables = {variable["name"] for variable in dashboard()["templating"]["list"]}
    used = set(re.findall(r"\$(?!__)(\w+)", " ".join(queries())))
    assert used <= variables
    assert {"datasource", "instance"} <= variables
