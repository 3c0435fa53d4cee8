import pytest
import torch

from training.code_usage import code_usage


def test_codes_that_are_equally_frequent_have_the_perplexity_of_their_number() -> None:
    usage = code_usage([torch.arange(8).repeat(3).view(2, 3, 4)], 8)
    assert (usage.used, usage.size) == (8, 8)
    assert usage.perplexity == pytest.approx(8)


def test_a_collapsed_codebook_has_perplexity_one() -> None:
    usage = code_usage([torch.full((5, 7, 7), 3)], 64)
    assert usage.used == 1
    assert usage.perplexity == pytest.approx(1)


def test_the_answer_does_not_depend_on_the_batches() -> None:
    """Each batch alone has perplexity 1, and the whole has 2."""
    indices = torch.tensor([[0, 0, 0], [5, 5, 5]])
    assert code_usage(indices, 6) == code_usage([indices], 6)
    assert code_usage(indices, 6).perplexity == pytest.approx(2)


@pytest.mark.parametrize("index", [-1, 4])
def test_an_index_outside_the_codebook_is_refused(index: int) -> None:
    with pytest.raises(ValueError, match=r"outside 0\.\.3"):
        code_usage([torch.tensor([0, index])], 4)


def test_no_codes_are_refused() -> None:
    with pytest.raises(ValueError, match="no codes"):
        code_usage([], 4)
