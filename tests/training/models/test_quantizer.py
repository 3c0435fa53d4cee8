import torch

from training.models.quantizer import Quantizer


def quantizer(codebook: list[list[float]], decay: float = 0.9) -> Quantizer:
    """One whose codes have been used once each."""
    made = Quantizer(len(codebook), len(codebook[0]), decay)
    made.codebook.copy_(torch.tensor(codebook))
    made.sums.copy_(made.codebook)
    made.counts.fill_(1.0)
    return made


def test_a_vector_gets_the_nearest_code() -> None:
    found = quantizer([[0.0, 0.0], [1.0, 1.0]]).eval()
    vectors = torch.tensor([[0.4, 0.4], [0.6, 0.6], [-3.0, 0.0]])
    assert found(vectors, torch.zeros(3)).tolist() == [0, 1, 0]


def test_the_codebook_moves_as_by_hand() -> None:
    """counts 0.9 + 0.1 n, sums 0.9 s + 0.1 sum of the vectors, and their ratio."""
    moved = quantizer([[0.0], [10.0]])
    moved(torch.tensor([[1.0], [2.0], [11.0]]), torch.zeros(3))
    torch.testing.assert_close(moved.counts, torch.tensor([1.1, 1.0]))
    torch.testing.assert_close(moved.sums, torch.tensor([[0.3], [10.1]]))
    torch.testing.assert_close(
        moved.codebook, torch.tensor([[0.3 / 1.1], [10.1]]), atol=1e-4, rtol=1e-4
    )


def test_all_codes_begin_at_vectors_of_the_first_batch() -> None:
    fresh = Quantizer(3, 2)
    vectors = torch.randn(8, 2, generator=torch.Generator().manual_seed(0))
    noise = torch.tensor([5.0, 1.0, 7.0, 2.0, 8.0, 3.0, 9.0, 6.0])
    codes = fresh(vectors, noise)
    assert [codes[index].item() for index in (1, 3, 5)] == [0, 1, 2]


def test_a_dead_code_begins_again_and_its_sums_with_it() -> None:
    revived = quantizer([[0.0], [100.0]])
    revived.counts[1] = 0.1
    vectors = torch.tensor([[0.5], [-0.5]])
    revived(vectors, torch.tensor([1.0, 0.0]))
    assert abs(revived.codebook[1].item()) < 1
    assert revived.counts[1] > 0.5
    assert abs(revived.sums[1].item()) < 1


def test_evaluation_moves_nothing() -> None:
    still = quantizer([[0.0], [10.0]]).eval()
    before = {name: value.clone() for name, value in still.state_dict().items()}
    still(torch.tensor([[1.0], [2.0]]), torch.zeros(2))
    assert all(torch.equal(value, before[name]) for name, value in still.state_dict().items())
