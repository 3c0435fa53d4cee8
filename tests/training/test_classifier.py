from pathlib import Path

import pytest
import torch

from training.classifier import fit_classifier
from training.config import DataConfig, FitConfig
from training.data import load_dataset
from training.errors import InterruptedFit, TrainingError
from training.fit import fit
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


def test_what_is_decoded_fainter_is_further_from_the_observation() -> None:
    """Features of unit length would hardly tell."""
    torch.manual_seed(0)
    model = PerceptualConfig(2, (8,), (4,), weight=1.0).build(Layout((1, 8, 8), label_count=3))
    for convolution in model.classifier.convolutions:
        convolution.bias.data.zero_()
    observations = torch.rand(5, 1, 8, 8)
    fainter = [
        model.auxiliary(torch.logit(share * observations), observations).mean().item()
        for share in (0.999, 0.5, 0.25)
    ]
    assert fainter[0] == pytest.approx(0, abs=1e-3)
    # Two layers, whose features shrink with the pixels: (1 - share)^2 of their mean square each.
    assert fainter[1:] == pytest.approx([2 * 0.5**2, 2 * 0.75**2], rel=0.05)


def test_a_perceptual_fit_goes_on_with_the_classifier_that_it_began_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = load_dataset(DataConfig("digits", train_limit=200, test_limit=50))
    model = PerceptualConfig(2, (8,), (4,))
    config = FitConfig("test", DataConfig("digits"), model, epochs=2, evaluate_every=2)
    with pytest.raises(InterruptedFit):
        fit(config, dataset, directory=tmp_path, minutes=0)

    def refuse(*_: object) -> None:
        raise AssertionError("fitted again")

    monkeypatch.setattr("training.models.perceptual.fit_classifier", refuse)
    resumed = fit(config, dataset, directory=tmp_path, resume=True).model.state_dict()
    monkeypatch.undo()

    whole = fit(config, dataset).model.state_dict()
    assert all(torch.equal(resumed[name], value) for name, value in whole.items())
