import torch
from torch import Tensor

from training.label_agreement import label_agreement


def draw(labels: Tensor) -> Tensor:
    """An observation whose first pixels say the label; label 2 comes out as label 0."""
    shown = torch.where(labels == 2, 0, labels)
    return torch.nn.functional.one_hot(shown, 4).float().view(-1, 1, 2, 2)


def test_the_share_that_is_read_as_asked_for_is_given_by_label() -> None:
    shares = label_agreement(draw, lambda observations: observations.flatten(1), 4, per_label=3)
    assert shares.tolist() == [1, 1, 0, 1]


def test_many_samples_come_in_chunks_and_each_counts_once() -> None:
    asked: list[int] = []

    def sample(labels: Tensor) -> Tensor:
        asked.append(len(labels))
        return draw(labels)

    shares = label_agreement(sample, lambda observations: observations.flatten(1), 4, 600)
    assert shares.tolist() == [1, 1, 0, 1]
    assert sum(asked) == 2400
    assert max(asked) <= 1000
