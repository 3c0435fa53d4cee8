"""The tables of docs/performance.md come from the file that a run wrote."""

from pathlib import Path

from benchmarks.page import BEGIN, END, tables, write_results

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "performance.md"


def newest() -> Path:
    return max((ROOT / "benchmarks" / "results").glob("*-goals.json"))


def test_the_page_shows_the_newest_results() -> None:
    shown = PAGE.read_text().partition(BEGIN)[2].partition(END)[0]
    assert shown.strip() == tables(newest()).strip()


def test_what_stands_around_the_tables_stays(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    write_results(page, newest())
    text = page.read_text()
    assert text.startswith(f"before\n{BEGIN}\n`benchmarks/results/")
    assert text.endswith(f"{END}\nafter\n")
    assert "old" not in text
