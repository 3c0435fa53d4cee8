"""A classifier fitted on the data at hand: it reads conditional samples, and sees features."""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.errors import require

if TYPE_CHECKING:  # data sets are read by their settings, which name the models that use this
    from training.data import Dataset

_EPOCHS = 4
_BATCH_SIZE = 128
_LEARNING_RATE = 2e-3
_CHUNK = 1000
_WIDTHS = (16, 32)


class Classifier(nn.Module):
    """Two convolutions that halve, two dense layers: [N, C, H, W] in [0, 1] -> scores [N, K]."""

    def __init__(self, observation_shape: tuple[int, int, int], label_count: int) -> None:
        super().__init__()
        channels, height, width = observation_shape
        for _ in _WIDTHS:
            height, width = math.ceil(height / 2), math.ceil(width / 2)
        self.convolutions = nn.ModuleList(
            nn.Conv2d(before, after, 5, stride=2, padding=2)
            for before, after in zip((channels, *_WIDTHS), _WIDTHS, strict=False)
        )
        self.dense = nn.Sequential(
            nn.Flatten(1),
            nn.Linear(_WIDTHS[-1] * height * width, 128),
            nn.ReLU(),
            nn.Linear(128, label_count),
        )

    def features(self, observations: Tensor) -> list[Tensor]:
        """[N, C, H, W] -> what each convolution sees, [N, W, H / 2, W / 2] and so on."""
        found, values = [], observations
        for convolution in self.convolutions:
            values = F.relu(convolution(values))
            found.append(values)
        return found

    def forward(self, observations: Tensor) -> Tensor:
        """Scores [N, label_count]."""
        scores: Tensor = self.dense(self.features(observations)[-1])
        return scores


def fit_classifier(
    dataset: "Dataset", seed: int = 0, epochs: int = _EPOCHS
) -> tuple[Classifier, float]:
    """A classifier of the training split in eval mode, and its accuracy on the test split.

    The same seed gives the same weights on the CPU. Raises TrainingError for data without labels.
    """
    require(dataset.label_count is not None, "a classifier needs a data set with labels")
    assert dataset.label_count is not None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        classifier = Classifier(dataset.observation_shape, dataset.label_count)
    pixels, labels = torch.from_numpy(dataset.train), torch.from_numpy(dataset.train_labels)
    scale = 1 / (dataset.maximum or 1)
    steps = epochs * math.ceil(len(pixels) / _BATCH_SIZE)
    optimizer = torch.optim.Adam(classifier.parameters(), lr=_LEARNING_RATE, fused=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(epochs):
        order = torch.randperm(len(pixels), generator=generator)
        for rows in torch.split(order, _BATCH_SIZE):
            loss = F.cross_entropy(classifier(pixels[rows].float() * scale), labels[rows])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
    classifier.eval()
    observations = torch.from_numpy(dataset.observations("test"))
    read = read_labels(classifier, observations)
    accuracy = (read == torch.from_numpy(dataset.test_labels)).double().mean().item()
    return classifier, accuracy


@torch.no_grad()
def read_labels(classify: Callable[[Tensor], Tensor], observations: Tensor) -> Tensor:
    """[N, C, H, W] -> the labels with the highest scores, [N] int64."""
    read = [classify(chunk).argmax(1) for chunk in torch.split(observations, _CHUNK)]
    return torch.cat(read)
