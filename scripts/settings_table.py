"""Writes the table of the service's settings into docs/operations.md.

    python -m scripts.settings_table

tests/service/test_settings_table.py checks that it is current.
"""

import sys
from pathlib import Path

from service.settings import Settings

PAGE = Path(__file__).resolve().parent.parent / "docs" / "operations.md"
START = "<!-- settings: written by python -m scripts.settings_table -->\n"
END = "<!-- end of settings -->\n"


def table() -> str:
    """Every setting, its variable, its default and what it is."""
    rows = ["| option | variable | default | what |", "| --- | --- | --- | --- |"]
    for name, field in Settings.model_fields.items():
        default = "needed" if field.is_required() else f"`{field.default}`"
        if field.default in (None, ""):
            default = "needed" if field.is_required() else "none"
        option = f"`--{name.replace('_', '-')}`"
        rows.append(f"| {option} | `VAE_{name.upper()}` | {default} | {field.description} |")
    return "\n".join(rows) + "\n"


def with_table(page: str) -> str:
    """The page with the table as it is now. Raises ValueError for a page without a place for it."""
    before, _, rest = page.partition(START)
    _, found, after = rest.partition(END)
    if not found:
        raise ValueError(f"expected {START.strip()} and {END.strip()} in the page")
    return before + START + table() + END + after


def main() -> int:
    """Runs the command line."""
    PAGE.write_text(with_table(PAGE.read_text()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
