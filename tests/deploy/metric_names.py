"""The metrics that rules and a dashboard name."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

DEPLOY = Path(__file__).parent.parent.parent / "deploy"
MONITORING = DEPLOY / "monitoring"


def rules() -> list[dict[str, Any]]:
    """Every rule of deploy/monitoring/rules.yaml."""
    groups = yaml.safe_load((MONITORING / "rules.yaml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def alerts() -> list[dict[str, Any]]:
    """Those of them that alert."""
    return [rule for rule in rules() if "alert" in rule]


def dashboard() -> dict[str, Any]:
    """deploy/monitoring/dashboard.json."""
    content: dict[str, Any] = json.loads((MONITORING / "dashboard.json").read_text())
    return content


def queries() -> list[str]:
    """Every expression of the dashboard, with a number where Grafana puts one."""
    panels = dashboard()["panels"]
    return [
        target["expr"].replace("$__rate_interval", "1m")
        for panel in panels
        for target in panel.get("targets", [])
    ]


def metrics(expression: str) -> Iterator[str]:
    """Names of the metrics of an expression that a service exposes, not those that rules record."""
    yield from re.findall(r"(?<![\w:$])(?:vae|process)_\w+(?![\w:])", expression)
