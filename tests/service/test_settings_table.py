"""The settings in docs/operations.md and docs/training.md."""

import pytest

from scripts.settings_table import DOCS, PAGES, service_table, with_settings
from service.metrics import Metrics
from service.settings import Settings
from tests.service.fake_model import FakeModel


@pytest.mark.parametrize("name", PAGES)
def test_the_settings_in_a_page_are_those_of_the_code(name: str) -> None:
    page = (DOCS / name).read_text()
    start, settings = PAGES[name]
    assert page == with_settings(page, start, settings()), "run python -m scripts.settings_table"


def test_every_setting_has_a_row_with_its_option_variable_and_default() -> None:
    rows = service_table().splitlines()[2:]
    assert len(rows) == len(Settings.model_fields)
    assert any(
        row.startswith("| `--metrics-port` | `VAE_METRICS_PORT` | `9090` | ") for row in rows
    )
    assert any(row.startswith("| `--repository` | `VAE_REPOSITORY` | needed | ") for row in rows)


def test_a_page_keeps_what_is_around_its_settings() -> None:
    end = "<!-- end of settings -->\n"
    page = with_settings(f"before\nSTART\nold\n{end}after\n", "START\n", "new\n")
    assert page == f"before\nSTART\nnew\n{end}after\n"
    with pytest.raises(ValueError, match="expected"):
        with_settings("nothing", "START\n", "new\n")


def test_the_page_explains_every_metric() -> None:
    metrics = Metrics()
    metrics.model_loaded(FakeModel().model, 1.0)
    metrics.follow_gpus(list)
    page = (DOCS / "operations.md").read_text()
    for family in metrics.collect():
        name = f"{family.name}_total" if family.type == "counter" else family.name
        assert f"`{name}`" in page
