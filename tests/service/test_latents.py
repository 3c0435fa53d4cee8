"""Ways through the latent space."""

import numpy as np
import pytest
from numpy.typing import NDArray

from service.latents import interpolate, traverse

START = np.array([[[3.0, 0.0]], [[0.0, 1.0]]], np.float32)  # two items of shape (1, 2)
END = np.array([[[0.0, 3.0]], [[0.0, -2.0]]], np.float32)


def test_a_line_has_both_ends_and_even_steps_item_by_item() -> None:
    way = interpolate(START, END, 4, spherical=False)
    assert way.dtype == np.float32
    np.testing.assert_allclose(way[:4, 0], [[3, 0], [2, 1], [1, 2], [0, 3]], atol=1e-6)
    np.testing.assert_allclose(way[4:, 0], [[0, 1], [0, 0], [0, -1], [0, -2]], atol=1e-6)


def test_an_arc_keeps_the_norm_and_turns_evenly() -> None:
    way = interpolate(START[:1], END[:1], 4, spherical=True)[:, 0]
    np.testing.assert_allclose(np.linalg.norm(way, axis=1), 3, atol=1e-5)
    angles = np.degrees(np.arctan2(way[:, 1], way[:, 0]))
    np.testing.assert_allclose(angles, [0, 30, 60, 90], atol=1e-3)


def test_the_norm_of_an_arc_goes_evenly_from_one_to_the_other() -> None:
    way = interpolate(START[:1], END[:1] * 3, 3, spherical=True)[:, 0]
    np.testing.assert_allclose(np.linalg.norm(way, axis=1), [3, 6, 9], rtol=1e-5)


@pytest.mark.parametrize(
    "end", [[0.0, 1.0], [0.0, -2.0], [0.0, 0.0]], ids=["same", "opposite", "origin"]
)
def test_where_no_one_arc_leads_the_way_is_straight(end: list[float]) -> None:
    start, end_ = np.array([[0.0, 1.0]], np.float32), np.array([end], np.float32)
    np.testing.assert_allclose(
        interpolate(start, end_, 5, spherical=True), interpolate(start, end_, 5, spherical=False)
    )


@pytest.mark.parametrize("spherical", [False, True])
def test_the_ends_are_the_given_points_to_the_bit(spherical: bool) -> None:
    random = np.random.default_rng(0)
    start, end = (random.standard_normal((3, 7), dtype=np.float32) for _ in range(2))
    way = interpolate(start, end, 6, spherical=spherical).reshape(3, 6, 7)
    np.testing.assert_array_equal(way[:, 0], start)
    np.testing.assert_array_equal(way[:, -1], end)


def test_one_unit_goes_through_the_range_and_all_others_stay() -> None:
    latents: NDArray[np.float32] = np.arange(8, dtype=np.float32).reshape(2, 2, 2)
    way = traverse(latents, 2, -1.0, 1.0, 3).reshape(2, 3, 4)
    np.testing.assert_array_equal(way[:, :, 2], [[-1, 0, 1], [-1, 0, 1]])
    np.testing.assert_array_equal(way[0, :, [0, 1, 3]].T, [[0, 1, 3]] * 3)
    np.testing.assert_array_equal(way[1, :, [0, 1, 3]].T, [[4, 5, 7]] * 3)
    assert latents[0, 1, 0] == 2, "the given latents are left alone"
