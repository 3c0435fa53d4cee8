"""CPUs of a process by made-up cgroups; tests/integration/test_operations.py has real ones."""

import os
from pathlib import Path

import pytest

from service.cpus import cpu_quota


@pytest.fixture(autouse=True)
def eight(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8)))


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.mark.parametrize(
    ("text", "cpus"),
    [
        ("max 100000\n", 8),
        ("200000 100000\n", 2),
        ("250000 100000\n", 2),
        ("50000 100000\n", 1),
        ("1600000 100000\n", 8),
        ("300000 50000\n", 6),
        ("", 8),
        ("garbage\n", 8),
        ("two 100000\n", 8),
    ],
)
def test_the_quota_of_a_container_cuts_the_affinity(tmp_path: Path, text: str, cpus: int) -> None:
    assert cpu_quota(write(tmp_path, {"sys/fs/cgroup/cpu.max": text})) == cpus


@pytest.mark.parametrize(("quota", "cpus"), [("-1", 8), ("300000", 3), ("50000", 1), ("", 8)])
@pytest.mark.parametrize("controllers", ["cpu", "cpu,cpuacct"])
def test_a_quota_of_version_1_does_so_too(
    tmp_path: Path, quota: str, cpus: int, controllers: str
) -> None:
    """A container on such a host without a cgroup namespace: the path is the host's."""
    files = {
        "proc/self/cgroup": f"5:memory:/\n4:{controllers}:/docker/1f\n1:name=systemd:/\n0::/\n",
        f"sys/fs/cgroup/{controllers}/cpu.cfs_quota_us": f"{quota}\n",
        f"sys/fs/cgroup/{controllers}/cpu.cfs_period_us": "100000\n",
    }
    assert cpu_quota(write(tmp_path, files)) == cpus


def test_the_least_quota_on_the_way_up_counts(tmp_path: Path) -> None:
    """A service of systemd, in a slice with a quota."""
    files = {
        "proc/self/cgroup": "0::/vae.slice/vae.service\n",
        "sys/fs/cgroup/vae.slice/cpu.max": "200000 100000\n",
        "sys/fs/cgroup/vae.slice/vae.service/cpu.max": "500000 100000\n",
        "sys/fs/cgroup/other.slice/cpu.max": "100000 100000\n",
    }
    assert cpu_quota(write(tmp_path, files)) == 2


def test_without_cgroups_the_affinity_counts(tmp_path: Path) -> None:
    assert cpu_quota(tmp_path) == 8
