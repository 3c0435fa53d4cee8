from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

import training.evaluate
from training.config import FitConfig
from training.data import Dataset
from training.evaluate import Evaluation, evaluate, posterior_means
from training.fit import initial_model
from training.likelihoods import bits_per_dim
from training.models import Layout, MlpConfig, Vae

FIELDS = ["elbo", "rate", "distortion", "bits_per_dim", "active_units", "log_likelihood"]


@pytest.fixture(params=["bernoulli", "gaussian"])
def model(request: pytest.FixtureRequest, tiny_config: FitConfig, tiny_dataset: Dataset) -> Vae:
    model = replace(tiny_config.model, likelihood=request.param)
    fresh = initial_model(replace(tiny_config, model=model), tiny_dataset)
    assert isinstance(fresh, Vae)
    return fresh


def collapse(model: Vae) -> Vae:
    """Make the posterior the prior, whatever the observation."""
    last = model.encoder[-1]
    assert isinstance(last, nn.Linear)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return model


def test_the_same_seed_gives_the_same_numbers(model: Vae, tiny_dataset: Dataset) -> None:
    assert evaluate(model, tiny_dataset, seed=3) == evaluate(model, tiny_dataset, seed=3)


def test_another_seed_gives_other_numbers(model: Vae, tiny_dataset: Dataset) -> None:
    first, second = (evaluate(model, tiny_dataset, draws=1, seed=seed) for seed in (1, 2))
    assert first.distortion != second.distortion
    assert first.elbo == pytest.approx(second.elbo, rel=0.2)


def test_the_numbers_fit_together(model: Vae, tiny_dataset: Dataset) -> None:
    evaluation = evaluate(model, tiny_dataset)
    assert evaluation.elbo == -(evaluation.rate + evaluation.distortion)
    bits = bits_per_dim(model.likelihood_name, -evaluation.elbo, dims=64, maximum=16)
    assert evaluation.bits_per_dim == pytest.approx(bits)
    assert evaluation.rate > 0


def test_a_collapsed_model_has_no_rate_and_no_active_units(
    model: Vae, tiny_dataset: Dataset
) -> None:
    evaluation = evaluate(collapse(model), tiny_dataset)
    assert evaluation.active_units == 0
    assert evaluation.rate == 0


def test_latents_that_vary_over_observations_are_counted(binary_dataset: Dataset) -> None:
    """The first latent is a pixel, variance about 1/4; the second a tenth of it, below 0.01."""
    model = collapse(MlpConfig(latent_size=3, hidden_sizes=()).build(Layout((1, 4, 4))))
    last = model.encoder[-1]
    assert isinstance(last, nn.Linear)
    last.weight.data[0, 0] = 1
    last.weight.data[1, 0] = 0.1
    assert evaluate(model, binary_dataset).active_units == 1


@pytest.mark.parametrize("training", [True, False])
def test_the_mode_of_the_model_is_left_as_it_was(
    model: Vae, tiny_dataset: Dataset, training: bool
) -> None:
    model.train(training)
    evaluate(model, tiny_dataset, draws=1)
    assert model.training is training


def test_every_item_of_a_large_split_counts_once() -> None:
    """The decoder answers 1/2, so each pixel costs ln 2, and a gray one as much."""
    pixels = np.zeros((2500, 1, 2, 2), np.uint8)
    labels = np.zeros(2500, np.int64)
    dataset = Dataset("many", pixels, pixels, labels, labels, maximum=1)
    model = collapse(MlpConfig(latent_size=1, hidden_sizes=()).build(Layout((1, 2, 2))))
    for parameter in model.decoder.parameters():
        nn.init.zeros_(parameter)

    evaluation = evaluate(model, dataset, draws=3)

    assert evaluation.distortion == pytest.approx(4 * np.log(2))
    assert evaluation.bits_per_dim == pytest.approx(1)
    assert posterior_means(model, torch.zeros(2500, 1, 2, 2)).shape == (2500, 1)


def test_a_small_split_gets_many_draws(model: Vae, tiny_dataset: Dataset) -> None:
    default = evaluate(model, tiny_dataset)
    assert default == evaluate(model, tiny_dataset, draws=10_000 // len(tiny_dataset.test))


def test_only_a_bernoulli_model_sees_binarized_observations(
    model: Vae, tiny_dataset: Dataset
) -> None:
    seen = training.evaluate.test_observations(model, tiny_dataset, torch.Generator())
    gray = torch.from_numpy(tiny_dataset.observations("test"))
    if model.likelihood_name == "bernoulli":
        assert set(seen.unique().tolist()) == {0, 1}
    else:
        assert torch.equal(seen, gray)


def test_an_evaluation_is_one_json_object() -> None:
    evaluation = Evaluation(-3.0, 1.0, 2.0, 0.5, active_units=4)
    assert evaluation.to_json() == dict(zip(FIELDS, [-3.0, 1.0, 2.0, 0.5, 4, None], strict=True))
