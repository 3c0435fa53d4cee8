"""The tables of docs/performance.md come from the files that runs wrote."""

from pathlib import Path

import pytest

from benchmarks.errors import BenchmarkError
from benchmarks.page import TABLES, marks, write_results

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "performance.md"


def newest(kind: str) -> Path:
    return max((ROOT / "benchmarks" / "results").glob(f"????-??-??-{kind}.json"))


@pytest.mark.parametrize("kind", TABLES)
def test_the_page_shows_the_newest_results(kind: str) -> None:
    begin, end = marks(kind)
    shown = PAGE.read_text().partition(begin)[2].partition(end)[0]
    assert shown.strip() == TABLES[kind](newest(kind)).strip()


@pytest.mark.parametrize("kind", TABLES)
def test_what_stands_around_the_tables_stays(tmp_path: Path, kind: str) -> None:
    begin, end = marks(kind)
    page = tmp_path / "page.md"
    page.write_text(f"before\n{begin}\nold\n{end}\nafter\n")
    write_results(page, newest(kind))
    text = page.read_text()
    assert text.startswith(f"before\n{begin}\n`benchmarks/results/")
    assert text.endswith(f"{end}\nafter\n")
    assert "old" not in text


@pytest.mark.parametrize("kind", ["swaps", "training-cuda"])
def test_results_that_the_page_does_not_show_are_refused(tmp_path: Path, kind: str) -> None:
    with pytest.raises(BenchmarkError, match=rf"expected a file of goals or cuda, not .*{kind}"):
        write_results(tmp_path / "page.md", Path(f"2026-11-24-{kind}.json"))
