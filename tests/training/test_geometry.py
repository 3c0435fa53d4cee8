import math
from collections.abc import Callable

import pytest
import torch

from training.geometry import lerp, principal_components, slerp

EAST, NORTH = torch.tensor([2.0, 0.0]), torch.tensor([0.0, 2.0])


@pytest.mark.parametrize("path", [lerp, slerp])
@pytest.mark.parametrize("shape", [(3,), (2, 4, 4)])
def test_a_path_starts_and_ends_at_its_ends(
    path: Callable[..., torch.Tensor], shape: tuple[int, ...]
) -> None:
    generator = torch.Generator().manual_seed(0)
    first, second = (torch.randn(shape, generator=generator) for _ in range(2))
    points = path(first, second, 5)
    assert points.shape == (5, *shape)
    torch.testing.assert_close(points[0], first)
    torch.testing.assert_close(points[-1], second)


def test_a_line_has_equal_steps() -> None:
    torch.testing.assert_close(lerp(EAST, NORTH, 3)[1], torch.tensor([1.0, 1.0]))


def test_an_arc_keeps_the_norm_and_has_equal_angles() -> None:
    points = slerp(EAST, NORTH, 4)
    torch.testing.assert_close(points.norm(dim=1), torch.full((4,), 2.0))
    angles = torch.atan2(points[:, 1], points[:, 0])
    torch.testing.assert_close(angles, torch.linspace(0, math.pi / 2, 4), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (EAST, EAST),
        (EAST, EAST + torch.tensor([0.0, 1e-4])),
        (EAST, 3 * EAST),
        (EAST, -EAST),
        (EAST, torch.zeros(2)),
        (torch.zeros(2), torch.zeros(2)),
    ],
    ids=["same", "near", "longer", "opposite", "to zero", "both zero"],
)
def test_without_an_arc_the_line_is_taken(first: torch.Tensor, second: torch.Tensor) -> None:
    torch.testing.assert_close(slerp(first, second, 5), lerp(first, second, 5))


def test_arc_and_line_agree_where_one_replaces_the_other() -> None:
    second = torch.tensor([2 * math.cos(0.011), 2 * math.sin(0.011)])
    torch.testing.assert_close(slerp(EAST, second, 5), lerp(EAST, second, 5), atol=1e-4, rtol=0)


def test_principal_components_are_the_directions_of_most_variance() -> None:
    generator = torch.Generator().manual_seed(0)
    points = torch.randn(500, 3, generator=generator) * torch.tensor([1.0, 5.0, 0.1]) + 7
    projected, shares = principal_components(points)
    centred = points - points.mean(0)
    torch.testing.assert_close(projected[:, 0], centred[:, 1], atol=0.5, rtol=0)
    assert projected.var(0).tolist() == pytest.approx([25, 1], rel=0.2)
    assert shares.sum().item() == pytest.approx(1, abs=0.001)
    assert shares[0] > shares[1]


@pytest.mark.parametrize(("items", "latents"), [(1, 4), (5, 1), (1, 1)])
def test_missing_components_are_zero(items: int, latents: int) -> None:
    projected, shares = principal_components(torch.ones(items, latents))
    assert projected.shape == (items, 2)
    assert shares.tolist() == [0, 0]
