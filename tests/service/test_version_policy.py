"""Which versions a policy chooses."""

import pytest

from service.version_policy import chosen


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ("latest 1", {10}),
        ("latest 2", {10, 9}),
        ("latest 9", {2, 9, 10}),
        ("all", {2, 9, 10}),
        ("2", {2}),
        ("2,10", {2, 10}),
        ("2,7", {2, 7}),  # one that is not there is wanted all the same
    ],
)
def test_a_policy_chooses_versions(policy: str, expected: set[int]) -> None:
    assert chosen(policy, [9, 10, 2]) == expected


@pytest.mark.parametrize("policy", ["latest 1", "all"])
def test_of_nothing_nothing_is_chosen(policy: str) -> None:
    assert chosen(policy, []) == set()


@pytest.mark.parametrize(
    "policy", ["", "latest", "latest 0", "latest -1", "newest", "1,", "0", "01"]
)
def test_what_is_no_policy_is_refused(policy: str) -> None:
    with pytest.raises(ValueError, match='"latest N", "all", or numbers'):
        chosen(policy, [1])
