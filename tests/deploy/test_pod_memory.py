"""How much memory a container holds, and may."""

from pathlib import Path

import pytest

from scripts.pod_memory import cgroup, held, quantity

VERSION_1 = """\
10:memory:/parent/container
2:cpu,cpuacct:/parent/container
0::/elsewhere
"""


@pytest.mark.parametrize(
    ("text", "expected"), [("2Gi", 2**31), ("512Mi", 2**29), ("3M", 3_000_000), ("128", 128)]
)
def test_a_quantity_is_read_as_kubernetes_reads_it(text: str, expected: int) -> None:
    assert quantity(text) == expected


@pytest.mark.parametrize("text", ["", "2GiB", "two", "1.5Gi"])
def test_what_is_no_quantity_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a quantity"):
        quantity(text)


def test_a_cgroup_is_found_in_both_versions() -> None:
    root = Path("/cgroups")

    assert cgroup(VERSION_1, root) == root / "memory" / "parent" / "container"
    assert cgroup("0::/machine/container\n", root) == root / "machine" / "container"
    with pytest.raises(ValueError, match="no cgroup"):
        cgroup("2:cpu:/container\n", root)


def test_files_that_were_read_are_not_held() -> None:
    version_1 = "cache 90\nrss 1\nshmem 2\ntotal_cache 900\ntotal_rss 10\ntotal_shmem 20\n"
    version_2 = "anon 3\nfile 800\nshmem 4\n"

    assert held(version_1) == 30
    assert held(version_2) == 7
