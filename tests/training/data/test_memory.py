from pathlib import Path

import pytest

from training.config import DataConfig
from training.data import load_dataset, memory
from training.data.memory import available_memory, require_memory
from training.errors import TrainingError

GIB = 2**30


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The files in which Linux, in a container, says how much memory there is: 3 GiB."""
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/meminfo").write_text(f"MemTotal: 9 kB\nMemAvailable: {3 * 2**20} kB\n")
    cgroup = tmp_path / "sys/fs/cgroup"
    cgroup.mkdir(parents=True)
    (cgroup / "memory.max").write_text("max\n")
    (cgroup / "memory.current").write_text(f"{5 * GIB}\n")
    (cgroup / "memory.stat").write_text(f"anon 7\ninactive_file {GIB}\n")
    return tmp_path


def test_without_a_limit_the_system_counts(root: Path) -> None:
    assert available_memory(root) == 3 * GIB


def test_the_limit_of_a_container_counts_if_it_leaves_less(root: Path) -> None:
    (root / "sys/fs/cgroup/memory.max").write_text(f"{6 * GIB}\n")
    assert available_memory(root) == 2 * GIB


def test_elsewhere_all_of_the_physical_memory_counts(tmp_path: Path) -> None:
    available = available_memory(tmp_path)
    assert available is None or available > 2**20


def test_this_machine_has_memory() -> None:
    require_memory(1, "one byte")


def test_a_refusal_says_how_much_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available_memory", lambda: GIB)
    with pytest.raises(TrainingError, match=r"needs 1\.50 GiB of memory and 1\.00 GiB are avail"):
        require_memory(3 * GIB // 2, "reading all")


def test_nothing_is_refused_where_nothing_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available_memory", lambda: None)
    require_memory(2**60, "an exbibyte")


def test_a_set_that_does_not_fit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available_memory", lambda: 2**27)
    with pytest.raises(TrainingError, match=r"92160 shapes of 32x32 pixels needs 0\.18 GiB"):
        load_dataset(DataConfig("shapes"))
