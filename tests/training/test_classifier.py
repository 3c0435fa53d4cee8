import pytest
import torch

from training.classifier import fit_classifier
from training.config import DataConfig
from training.data import load_dataset
from training.errors import TrainingError
from training.model import Layout
from training.models import PerceptualConfig


def test_digits_are_read_and_the_same_seed_gives_the_same_weights() -> None:
    dataset = load_dataset(DataConfig("digits"))
    classifier, accuracy = fit_classifier(dataset, epochs=15)
    again, _ = fit_classifier(dataset, epochs=15)
    assert accuracy > 0.9
    assert all(
        torch.equal(mine, theirs)
        for mine, theirs in zip(classifier.parameters(), again.parameters(), strict=True)
    )


def test_data_without_labels_are_refused() -> None:
    dataset = load_dataset(DataConfig("linear-gaussian", train_limit=10, test_limit=10))
    with pytest.raises(TrainingError, match="needs a data set with labels"):
        fit_classifier(dataset)


def test_a_perceptual_vae_keeps_its_classifier_still_and_adds_a_distance() -> None:
    torch.manual_seed(0)
    model = PerceptualConfig(2, (8,), (4,)).build(Layout((1, 8, 8), label_count=3))
    observations, noise = torch.rand(5, 1, 8, 8), torch.randn(5, 2)
    terms = model.elbo_terms(observations, noise)
    (terms.distortion + terms.auxiliary).sum().backward()
    assert (terms.auxiliary > 0).all()
    assert all(parameter.grad is None for parameter in model.classifier.parameters())
    assert terms.rate.shape == (5, 2)
