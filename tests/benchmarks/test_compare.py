from pathlib import Path

import pytest

from benchmarks.compare import compare
from benchmarks.errors import BenchmarkError
from benchmarks.scenarios import QUICK
from benchmarks.servers import running


def test_a_folder_without_the_service_is_no_checkout(tmp_path: Path) -> None:
    with pytest.raises(BenchmarkError, match="expected another checkout"):
        compare(tmp_path, QUICK)


def test_the_service_of_another_checkout_runs_its_own_code(tmp_path: Path) -> None:
    other = tmp_path / "before"
    (other / "service").mkdir(parents=True)
    (other / "service" / "__init__.py").touch()
    (other / "service" / "__main__.py").write_text("raise SystemExit(3)")
    with pytest.raises(RuntimeError, match="ended with 3"), running(tmp_path, [], other):
        pass
