import pytest
import torch

from training.models.quantizer import Quantizer


def _grid(rows: list[list[float]]) -> torch.Tensor:
    """[N, D] vectors as a grid of one position each: [N, D, 1, 1]."""
    return torch.tensor(rows)[:, :, None, None]


def _noise(count: int) -> torch.Tensor:
    return torch.arange(float(count))[:, None, None]


@pytest.fixture
def quantizer() -> Quantizer:
    """Codes 0 and 10 on a line, each with a count of 1."""
    made = Quantizer(2, 1, decay=0.9, least=0.1)
    made(_grid([[0.0], [10.0]]), _noise(2))
    return made


def test_the_first_batch_gives_the_codes_in_the_order_of_the_noise() -> None:
    quantizer = Quantizer(2, 1)
    codes, _, _ = quantizer(_grid([[3.0], [7.0]]), -_noise(2))
    torch.testing.assert_close(quantizer.codebook, torch.tensor([[7.0], [3.0]]))
    assert codes.flatten().tolist() == [1, 0]


def test_codes_move_as_by_hand(quantizer: Quantizer) -> None:
    quantizer(_grid([[2.0], [4.0], [10.0]]), _noise(3))
    # counts .9 + .1 * 2 and .9 + .1; sums .9 * 0 + .1 * (2 + 4) and .9 * 10 + .1 * 10
    torch.testing.assert_close(quantizer.counts, torch.tensor([1.1, 1.0]))
    torch.testing.assert_close(quantizer.sums, torch.tensor([[0.6], [10.0]]))
    expected = torch.tensor([[0.6 / 1.1], [10.0]])
    torch.testing.assert_close(quantizer.codebook, expected, rtol=1e-4, atol=0)


def test_a_dead_code_comes_back_as_a_vector_of_the_batch_and_stays(quantizer: Quantizer) -> None:
    for _ in range(40):
        quantizer(_grid([[-1.0], [0.0], [1.0]]), _noise(3))
    assert quantizer.codebook.abs().max() <= 1.01
    assert quantizer.counts.min() > 0.1
    torch.testing.assert_close(
        quantizer.sums, quantizer.codebook * quantizer.counts[:, None], rtol=1e-3, atol=1e-3
    )


def test_the_gradient_goes_straight_through(quantizer: Quantizer) -> None:
    inputs = _grid([[1.0], [9.0]]).requires_grad_()
    values = quantizer(inputs, _noise(2)).values
    (values * torch.tensor([2.0, 3.0])[:, None, None, None]).sum().backward()  # type: ignore[no-untyped-call]
    assert inputs.grad is not None
    assert inputs.grad.flatten().tolist() == [2.0, 3.0]


def test_nothing_moves_in_eval_mode(quantizer: Quantizer) -> None:
    before = {name: value.clone() for name, value in quantizer.state_dict().items()}
    quantizer.eval()(_grid([[5.0], [6.0]]), _noise(2))
    for name, value in quantizer.state_dict().items():
        assert torch.equal(value, before[name])


def test_the_distance_of_an_item_does_not_depend_on_its_batch(quantizer: Quantizer) -> None:
    quantizer.eval()
    distance = quantizer(_grid([[1.0], [7.0]]), _noise(2)).distance
    assert distance.tolist() == [1.0, 9.0]


def test_counts_and_sums_are_added_up_over_processes() -> None:
    quantizer = Quantizer(1, 1, decay=0.5, add_up=lambda values: values.mul_(2))
    quantizer(_grid([[3.0]]), _noise(1))
    # One vector in each of two processes: a count of 2, and twice the sum.
    assert quantizer.counts.tolist() == [1.5]


def test_codes_stay_exact_under_bfloat16(quantizer: Quantizer) -> None:
    with torch.autocast("cpu", torch.bfloat16):
        values = quantizer(_grid([[1.0], [9.0]]), _noise(2)).values
    assert values.dtype == quantizer.codebook.dtype == torch.float32


def test_the_same_vectors_and_noise_give_the_same_codebook() -> None:
    def fitted() -> torch.Tensor:
        generator = torch.Generator().manual_seed(0)
        quantizer = Quantizer(8, 3)
        for _ in range(20):
            vectors = torch.randn(6, 3, 2, 2, generator=generator)
            quantizer(vectors, torch.randn(6, 2, 2, generator=generator))
        return quantizer.codebook

    assert torch.equal(fitted(), fitted())
