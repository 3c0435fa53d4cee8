"""Which versions of a model are served; the words are Triton's: latest n, all, a list."""

import re
from collections.abc import Iterable
from typing import Final

PATTERN: Final = r"^(latest [1-9]\d{0,3}|all|[1-9]\d{0,9}(,[1-9]\d{0,9})*)$"
DESCRIPTION: Final = 'versions that are served: "latest N", "all", or numbers as in "1,3"'


def chosen(policy: str, versions: Iterable[int]) -> set[int]:
    """The versions to serve of those that are there; those of a list whether there or not.

    Raises ValueError for a policy that is none.
    """
    if not re.fullmatch(PATTERN, policy):
        raise ValueError(f"expected {DESCRIPTION}, not {policy!r}")
    if policy == "all":
        return set(versions)
    if policy.startswith("latest "):
        return set(sorted(versions)[-int(policy.removeprefix("latest ")) :])
    return {int(version) for version in policy.split(",")}
