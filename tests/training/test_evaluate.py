import re
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tests.training.wrapped import Wrapped
from training.batches import layout_of
from training.config import FitConfig
from training.data import Dataset
from training.evaluate import Effort, Items, evaluate, evaluate_items, posteriors
from training.evaluate import test_items as items_of_test  # no test
from training.evaluation import Evaluation
from training.fit import initial_model
from training.likelihoods import bits_per_dim
from training.models import AutoregressiveConfig, Layout, MlpConfig, Vae

QUICK = Effort(draws=1, importance_samples=20)


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
    first, second = (evaluate(model, tiny_dataset, Effort(1, 0), seed=seed) for seed in (1, 2))
    assert first.distortion != second.distortion
    assert first.elbo == pytest.approx(second.elbo, rel=0.2)


def test_the_numbers_fit_together(model: Vae, tiny_dataset: Dataset) -> None:
    evaluation = evaluate(model, tiny_dataset)
    assert evaluation.rate is not None
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
    evaluate(model, tiny_dataset, QUICK)
    assert model.training is training


def test_every_item_of_a_large_split_counts_once() -> None:
    """The decoder answers 1/2, so each pixel costs ln 2, and a gray one as much."""
    pixels = np.zeros((2500, 1, 2, 2), np.uint8)
    labels = np.zeros(2500, np.int64)
    dataset = Dataset("many", pixels, pixels, labels, labels, maximum=1)
    model = collapse(MlpConfig(latent_size=1, hidden_sizes=()).build(Layout((1, 2, 2))))
    for parameter in model.decoder.parameters():
        nn.init.zeros_(parameter)

    evaluation = evaluate(model, dataset, Effort(3, 0))

    assert evaluation.distortion == pytest.approx(4 * np.log(2))
    assert evaluation.bits_per_dim == pytest.approx(1)
    assert evaluation.mean_squared_error == pytest.approx(0.25)
    assert posteriors(model, Items(torch.zeros(2500, 1, 2, 2)))[0].shape == (2500, 1)


def test_a_small_split_gets_many_draws(model: Vae, tiny_dataset: Dataset) -> None:
    default = evaluate(model, tiny_dataset, Effort(importance_samples=0))
    assert default == evaluate(model, tiny_dataset, Effort(10_000 // len(tiny_dataset.test), 0))


def test_only_a_bernoulli_model_sees_binarized_observations(
    model: Vae, tiny_dataset: Dataset
) -> None:
    seen = items_of_test(model, tiny_dataset, torch.Generator()).observations
    gray = torch.from_numpy(tiny_dataset.observations("test"))
    if model.likelihood_name == "bernoulli":
        assert set(seen.unique().tolist()) == {0, 1}
    else:
        assert torch.equal(seen, gray)


def test_what_does_not_apply_is_absent_from_the_json_object() -> None:
    evaluation = Evaluation(2.0, 9, elbo=-3.0, active_units=0)
    expected = {"distortion": 2.0, "items": 9, "elbo": -3.0, "active_units": 0}
    assert evaluation.to_json() == expected
    assert evaluation.document() == expected


def test_the_log_likelihood_is_above_the_elbo_and_has_its_error(
    model: Vae, tiny_dataset: Dataset
) -> None:
    evaluation = evaluate(model, tiny_dataset, Effort(importance_samples=200, importance_items=15))
    assert [bound.k for bound in evaluation.bounds] == [1, 5, 50, 200]
    assert evaluation.log_likelihood == evaluation.bounds[-1].value
    assert evaluation.bounds[0].value < evaluation.bounds[-1].value
    assert (evaluation.importance_samples, evaluation.importance_items) == (200, 15)
    assert evaluation.effective_sample_size is not None
    assert 1 < evaluation.effective_sample_size < 200
    assert evaluation.document()["bounds"][0]["k"] == 1


def test_a_model_that_costs_much_says_how_few_draws_it_gets(tiny_dataset: Dataset) -> None:
    settings = AutoregressiveConfig(2, (4,), channels=2, layers=0, kernel=1)
    costly = settings.build(layout_of(tiny_dataset)).eval()
    costly.importance_samples, costly.importance_items = 3, 7
    evaluation = evaluate(costly, tiny_dataset)
    assert (evaluation.importance_samples, evaluation.importance_items) == (3, 7)


def test_the_rate_by_unit_adds_up_to_the_rate(model: Vae, tiny_dataset: Dataset) -> None:
    evaluation = evaluate(model, tiny_dataset, QUICK)
    assert len(evaluation.rate_by_unit) == 3
    assert sum(evaluation.rate_by_unit) == pytest.approx(evaluation.rate)
    assert evaluation.mutual_information is not None
    assert evaluation.mismatch is not None
    assert evaluation.mutual_information + evaluation.mismatch == pytest.approx(evaluation.rate)


class Labelled(Wrapped):
    """Says the label by the mean brightness of its decoder's output, and needs it."""

    def __init__(self, vae: Vae, family: str = "conditional") -> None:
        super().__init__(vae)
        self.family = family
        self.label_count = 10

    def decode(self, latents: torch.Tensor, label: torch.Tensor | None = None) -> torch.Tensor:
        assert label is not None
        return (label / 10).view(-1, 1, 1, 1).expand(-1, *self.observation_shape)

    def prior(self, label: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        assert label is not None
        means = label.float()[:, None].expand(-1, 3)
        return means, torch.zeros_like(means)


def read(observations: torch.Tensor) -> torch.Tensor:
    brightness = observations.mean((1, 2, 3))[:, None]
    return -(brightness - torch.arange(10) / 10).abs()


def evaluated(model: Any, dataset: Dataset, **options: Any) -> Evaluation:
    generator = torch.Generator().manual_seed(0)
    items = Items(
        torch.from_numpy(dataset.observations("test")).round(),
        torch.from_numpy(dataset.test_labels),
    )
    return evaluate_items(model, items, generator, effort=QUICK, **options)


def test_a_conditional_model_is_read_by_a_classifier(model: Vae, tiny_dataset: Dataset) -> None:
    assert evaluated(Labelled(model), tiny_dataset, classify=read).label_agreement == 1
    assert evaluated(model, tiny_dataset, classify=read).label_agreement is None


def test_a_mismatch_to_another_prior_than_a_standard_normal_one_is_not_claimed(
    model: Vae, tiny_dataset: Dataset
) -> None:
    evaluation = evaluated(Labelled(model), tiny_dataset)
    assert evaluation.mismatch is None
    assert evaluation.log_likelihood is not None


def test_an_autoencoder_has_a_distortion_and_no_bound(model: Vae, tiny_dataset: Dataset) -> None:
    plain = Wrapped(model)
    plain.bounds_likelihood = False
    document = evaluated(plain, tiny_dataset, bits=lambda nats: nats).document()
    assert document.keys() == {
        "distortion",
        "items",
        "active_units",
        "mean_squared_error",
        "gradient_energy",
    }


def test_a_set_with_factors_has_an_information_gap(model: Vae, tiny_dataset: Dataset) -> None:
    items = items_of_test(model, tiny_dataset, torch.Generator())
    assert items.labels is not None
    factors = torch.stack([items.labels, items.labels % 2], 1)
    with_factors = replace(items, factors=factors)
    evaluation = evaluate_items(model, with_factors, torch.Generator(), effort=QUICK)
    assert evaluation.mutual_information_gap is not None
    assert 0 <= evaluation.mutual_information_gap <= 1


class Codes(Wrapped):
    """Every pixel is its own code."""

    code_count = 5

    def codes(self, observations: torch.Tensor, label: torch.Tensor | None) -> torch.Tensor:
        return observations.long()


def test_a_codebook_has_its_usage_and_no_units(model: Vae, tiny_dataset: Dataset) -> None:
    evaluation = evaluated(Codes(model), tiny_dataset)
    assert evaluation.code_count == 5
    assert evaluation.used_codes in (0.2, 0.4)
    assert evaluation.perplexity is not None
    assert 1 <= evaluation.perplexity <= 2
    assert evaluation.rate is not None
    assert evaluation.active_units is None
    assert evaluation.active_units_by_rate is None
    assert evaluation.rate_by_unit == ()
    assert evaluation.log_likelihood is None


def test_the_table_has_a_line_for_what_applies_only(model: Vae, tiny_dataset: Dataset) -> None:
    table = evaluate(model, tiny_dataset, QUICK).table()
    assert "active units" in table
    assert "nats; at most 2.996 from 20 items" in table
    assert "codes" not in table
    assert "agreement" not in table
    quick = Evaluation(1.0, 9, used_codes=0.375, code_count=8, perplexity=2.5).table()
    assert re.search(r"used codes +0.375  of 8\n", quick)
    assert "ELBO" not in quick


def test_encoding_each_item_once_changes_no_log_weight(model: Vae, tiny_dataset: Dataset) -> None:
    """The plain model has the four methods only, and runs its encoder for every draw."""
    gaussian = model.eval()
    shared = (
        "family",
        "label_count",
        "noise_shape",
        "latent_shape",
        "encode",
        "decode",
        "elbo_terms",
        "bounds_likelihood",
    )
    plain = SimpleNamespace(**{name: getattr(gaussian, name) for name in shared})

    once, again = evaluated(gaussian, tiny_dataset), evaluated(plain, tiny_dataset)

    assert once.mismatch is not None
    assert again.mismatch is None
    assert once.log_likelihood == pytest.approx(again.log_likelihood, rel=1e-5)
