"""The table of settings in docs/operations.md."""

import pytest

from scripts.settings_table import END, PAGE, START, table, with_table
from service.metrics import Metrics
from service.settings import Settings
from tests.service.fake_model import FakeModel


def test_the_table_in_the_page_is_that_of_the_settings() -> None:
    page = PAGE.read_text()
    assert page == with_table(page), "run python -m scripts.settings_table"


def test_every_setting_has_a_row_with_its_option_variable_and_default() -> None:
    rows = table().splitlines()[2:]
    assert len(rows) == len(Settings.model_fields)
    assert any(
        row.startswith("| `--metrics-port` | `VAE_METRICS_PORT` | `9090` | ") for row in rows
    )
    assert any(row.startswith("| `--repository` | `VAE_REPOSITORY` | needed | ") for row in rows)


def test_a_page_keeps_what_is_around_its_table() -> None:
    assert (
        with_table(f"before\n{START}old\n{END}after\n") == f"before\n{START}{table()}{END}after\n"
    )
    with pytest.raises(ValueError, match="expected"):
        with_table("nothing")


def test_the_page_explains_every_metric() -> None:
    metrics = Metrics()
    metrics.model_loaded(FakeModel().model, 1.0)
    metrics.follow_gpus(list)
    page = PAGE.read_text()
    for family in metrics.collect():
        name = f"{family.name}_total" if family.type == "counter" else family.name
        assert f"`{name}`" in page
