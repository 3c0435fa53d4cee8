import math

import pytest
import torch

from training.models.pixelcnn import GatedPixelCnn, gumbel_of


def dependencies(network: GatedPixelCnn, pixels: torch.Tensor, row: int, column: int) -> set[int]:
    """The positions, counted in reading order, that the logits of one position depend on."""
    pixels = pixels.clone().requires_grad_()
    network(pixels)[0, :, row, column].sum().backward()
    assert pixels.grad is not None
    return set(pixels.grad[0].abs().sum(0).flatten().nonzero().flatten().tolist())


@pytest.mark.parametrize(("row", "column"), [(0, 0), (0, 4), (2, 0), (2, 2), (4, 4)])
def test_a_position_sees_all_before_it_and_nothing_else(row: int, column: int) -> None:
    torch.manual_seed(0)
    network = GatedPixelCnn(3, embedding=False, width=8, layers=4)
    seen = dependencies(network, torch.randn(1, 1, 5, 5), row, column)
    assert seen == set(range(5 * row + column))


def test_few_layers_see_only_what_is_near() -> None:
    torch.manual_seed(0)
    network = GatedPixelCnn(1, embedding=False, width=8, layers=1)
    seen = dependencies(network, torch.randn(1, 1, 7, 7), 5, 3)
    assert seen < set(range(7 * 5 + 3))
    assert 7 * 5 + 2 in seen
    assert 0 not in seen


def test_a_condition_reaches_every_position() -> None:
    network = GatedPixelCnn(1, embedding=False, width=4, layers=2, condition_size=3)
    pixels = torch.rand(2, 1, 4, 4)
    first, second = (
        network(pixels, condition) for condition in (torch.zeros(2, 3), torch.ones(2, 3))
    )
    assert (first != second).all()


def test_probabilities_of_all_codes_sum_to_one() -> None:
    torch.manual_seed(0)
    network = GatedPixelCnn(2, embedding=True, width=4, layers=2)
    grids = torch.cartesian_prod(*[torch.arange(2)] * 4).view(-1, 2, 2)
    assert torch.exp(-network.rate(grids)).sum().item() == pytest.approx(1.0, abs=1e-5)


def test_samples_are_a_function_of_the_noise_item_by_item() -> None:
    torch.manual_seed(0)
    network = GatedPixelCnn(5, embedding=True, width=8, layers=2).eval()
    noise = gumbel_of(torch.randn(4, 3, 3, 5))
    together = network.sample(noise)
    alone = torch.cat([network.sample(noise[item : item + 1]) for item in range(4)])
    assert torch.equal(together, alone)
    assert together.min() >= 0
    assert together.max() < 5


def test_samples_follow_the_probabilities() -> None:
    torch.manual_seed(0)
    network = GatedPixelCnn(3, embedding=True, width=4, layers=1).eval()
    with torch.no_grad():
        codes = network.sample(gumbel_of(torch.randn(20_000, 1, 2, 3)))
        grids = torch.cartesian_prod(torch.arange(3), torch.arange(3)).view(-1, 1, 2)
        expected = torch.exp(-network.rate(grids))
    found = torch.bincount(codes[:, 0, 0] * 3 + codes[:, 0, 1], minlength=9) / 20_000
    torch.testing.assert_close(found, expected, atol=0.02, rtol=0)


def test_gumbel_noise_has_its_mean_and_variance() -> None:
    noise = gumbel_of(torch.randn(200_000, generator=torch.Generator().manual_seed(0)))
    assert noise.mean().item() == pytest.approx(0.5772, abs=0.02)
    assert noise.var().item() == pytest.approx(math.pi**2 / 6, abs=0.05)
    assert gumbel_of(torch.tensor([-40.0, 40.0])).isfinite().all()
