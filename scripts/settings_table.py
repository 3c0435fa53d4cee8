"""Writes the settings of the service into docs/operations.md and those of a fit into training.md.

    python -m scripts.settings_table

tests/service/test_settings_table.py checks that both are current.
"""

import inspect
import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from service.settings import Settings
from training.config import DataConfig, FitConfig, OptimizerConfig
from training.models import ModelConfig
from training.objectives import ObjectiveConfig

DOCS = Path(__file__).resolve().parent.parent / "docs"
_END = "<!-- end of settings -->\n"


def service_table() -> str:
    """Every setting of the service, its variable, its default and what it is."""
    rows = ["| option | variable | default | what |", "| --- | --- | --- | --- |"]
    for name, field in Settings.model_fields.items():
        default = "needed" if field.is_required() else f"`{field.default}`"
        if field.default in (None, ""):
            default = "needed" if field.is_required() else "none"
        option = f"`--{name.replace('_', '-')}`"
        rows.append(f"| {option} | `VAE_{name.upper()}` | {default} | {field.description} |")
    return "\n".join(rows) + "\n"


def fit_sections() -> str:
    """Every setting of a fit with its default, and what the code says of them, by section."""
    families = [family() for family in get_args(ModelConfig)]
    sections = [
        _section("The fit", "", FitConfig("")),
        _section("data", "data.", DataConfig()),
        _section("objective", "objective.", ObjectiveConfig()),
        _section("optimizer", "optimizer.", OptimizerConfig()),
        *(_section(f"model, family {each.family}", "model.", each) for each in families),
    ]
    return "\n".join(sections)


def _section(title: str, prefix: str, config: Any) -> str:
    values = {
        name: value
        for name, value in asdict(config).items()
        if not isinstance(value, Mapping) and name not in ("preset", "family")
    }
    hints = get_type_hints(type(config))
    settings = ", ".join(
        f"`{prefix}{name}` {_text(value)}{_choices(hints[name], value)}"
        for name, value in values.items()
    )
    return f"### {title}\n\n{settings}.\n\n{inspect.getdoc(type(config))}\n"


def _text(value: object) -> str:
    return "none" if value in (None, ()) else json.dumps(value)


def _choices(hint: Any, value: object) -> str:
    """The other values that a setting takes, where they are few."""
    if get_origin(hint) is not Literal:
        return ""
    others = ", ".join(json.dumps(each) for each in get_args(hint) if each != value)
    return f" (or {others})"


PAGES: Mapping[str, tuple[str, Callable[[], str]]] = {
    "operations.md": (
        "<!-- settings: written by python -m scripts.settings_table -->\n",
        service_table,
    ),
    "training.md": (
        "<!-- settings of a fit: written by python -m scripts.settings_table -->\n",
        fit_sections,
    ),
}


def with_settings(page: str, start: str, settings: str) -> str:
    """The page with the settings as they are now, after `start`.

    Raises ValueError for a page without a place for them.
    """
    before, _, rest = page.partition(start)
    _, found, after = rest.partition(_END)
    if not found:
        raise ValueError(f"expected {start.strip()} and {_END.strip()} in the page")
    return before + start + settings + _END + after


def main() -> int:
    """Runs the command line."""
    for name, (start, settings) in PAGES.items():
        page = (DOCS / name).read_text()
        (DOCS / name).write_text(with_settings(page, start, settings()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
