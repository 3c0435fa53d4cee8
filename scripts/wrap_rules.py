"""Writes deploy/monitoring/prometheusrule.yaml: rules.yaml for the Prometheus operator.

Kustomize cannot put one file into a field of another; a test compares both.
"""

import sys
from pathlib import Path

MONITORING = Path(__file__).parent.parent / "deploy" / "monitoring"
HEAD = """\
# Written by scripts/wrap_rules.py from rules.yaml.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: vae-service
spec:
"""


def wrapped(rules: str) -> str:
    """A PrometheusRule with the rules of a file for Prometheus."""
    lines = [line for line in rules.splitlines() if not line.startswith("#")]
    return HEAD + "".join(f"  {line}\n" if line else "\n" for line in lines)


def main() -> int:
    """Writes the file."""
    rules = (MONITORING / "rules.yaml").read_text()
    (MONITORING / "prometheusrule.yaml").write_text(wrapped(rules))
    return 0


if __name__ == "__main__":
    sys.exit(main())
