import numpy as np
import pytest
from numpy.typing import NDArray

from training.disentanglement import fold_symmetry, mutual_information_gap

Int64 = NDArray[np.int64]


@pytest.fixture(scope="module")
def factors() -> Int64:
    """All combinations of 3, 5 and 10 classes, twenty times."""
    grid = np.stack(np.meshgrid(*map(np.arange, (3, 5, 10)), indexing="ij"), -1).reshape(-1, 3)
    return np.tile(grid, (20, 1))


def test_a_code_that_is_the_factors_has_a_gap_of_one(factors: Int64) -> None:
    codes = (factors * [1.0, -0.2, 7.0] + 3)[:, [2, 0, 1]].astype(np.float32)
    gap = mutual_information_gap(codes, factors)
    assert gap.score == pytest.approx(1)
    assert gap.by_factor == pytest.approx([1, 1, 1])
    assert gap.information.argmax(0).tolist() == [1, 2, 0]


def test_a_code_of_other_items_has_a_gap_near_zero(factors: Int64) -> None:
    shuffled = np.random.default_rng(0).permutation(factors).astype(np.float32)
    assert mutual_information_gap(shuffled, factors).score < 0.03


def test_a_factor_in_two_latents_has_no_gap(factors: Int64) -> None:
    codes = np.concatenate([factors, factors], 1).astype(np.float32)
    assert mutual_information_gap(codes, factors).score == pytest.approx(0)


def test_a_rotated_code_is_worse_than_an_aligned_one(factors: Int64) -> None:
    codes = (factors - factors.mean(0)) / factors.std(0)
    angle = np.pi / 4
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    turned = codes[:, :2] @ turn
    assert mutual_information_gap(turned, factors[:, :2]).score < 0.5


def test_a_constant_factor_counts_neither_for_nor_against(factors: Int64) -> None:
    constant = np.full((len(factors), 1), 4)
    gap = mutual_information_gap(factors.astype(np.float32), np.concatenate([factors, constant], 1))
    assert gap.score == pytest.approx(1)
    assert np.isnan(gap.by_factor[3])


def test_without_a_factor_that_varies_there_is_no_gap() -> None:
    with pytest.raises(ValueError, match="a factor that varies"):
        mutual_information_gap(np.ones((5, 2)), np.ones((5, 1), np.int64))


def test_a_single_latent_and_constant_ones_are_no_trouble(factors: Int64) -> None:
    alone = mutual_information_gap(factors[:, :1].astype(np.float32), factors[:, :1])
    constant = mutual_information_gap(np.zeros((len(factors), 2), np.float32), factors)
    assert alone.score == pytest.approx(1)
    assert constant.score == 0


def test_classes_may_be_any_numbers(factors: Int64) -> None:
    codes = factors.astype(np.float32)
    named = mutual_information_gap(codes, factors * 1000 - 7)
    np.testing.assert_array_equal(named.by_factor, mutual_information_gap(codes, factors).by_factor)


def test_an_angle_that_a_shape_does_not_show_is_folded(factors: Int64) -> None:
    """A square's angle shows up to a quarter of a turn only, so a code can hold no more of it."""
    steps = np.tile(np.arange(40), 50)
    periods = np.full_like(steps, 10)
    codes = (steps % 10).astype(np.float32)[:, None]
    assert mutual_information_gap(codes, steps[:, None]).score < 0.7
    folded = fold_symmetry(steps, periods)[:, None]
    assert mutual_information_gap(codes, folded).score == pytest.approx(1)
