import pytest
import torch

from training.errors import TrainingError
from training.model import Terms
from training.models import AutoencoderConfig, Layout, MlpConfig
from training.objectives import ObjectiveConfig, check_objective, kl_weight
from training.objectives.elbo import negative_elbo, weighted_bound


def terms(rate: torch.Tensor) -> Terms:
    count = len(rate)
    return Terms(rate, torch.full((count,), 2.0), auxiliary=torch.full((count,), 0.5))


def test_the_textbook_example_costs_0_468_nats() -> None:
    example = Terms(torch.tensor([[0.168]]), torch.tensor([0.3]))
    assert negative_elbo(example).item() == pytest.approx(0.468)


@pytest.mark.parametrize("weight", [0.0, 0.25, 1.0, 4.0])
def test_the_loss_weighs_the_rate_and_adds_the_auxiliary(weight: float) -> None:
    rate = torch.tensor([[1.0, 3.0], [2.0, 0.0]])
    assert weighted_bound(terms(rate), weight).item() == pytest.approx(2.5 + weight * 3)


def test_free_bits_are_free_on_average_over_the_batch() -> None:
    """The first latent costs 0.2 on average, below the limit, though one item is above it."""
    rate = torch.tensor([[0.4, 3.0], [0.0, 1.0]], requires_grad=True)
    loss = weighted_bound(terms(rate), kl_weight=2.0, free_bits=0.3)
    loss.backward()
    assert loss.item() == pytest.approx(2.5 + 2 * (0.3 + 2.0))
    assert rate.grad is not None
    assert rate.grad.tolist() == [[0, 1], [0, 1]]


def test_linear_annealing_rises_and_stays() -> None:
    config = ObjectiveConfig(kl_weight=2.0, annealing="linear", annealing_fraction=0.4)
    assert [kl_weight(config, at) for at in (0, 0.1, 0.2, 0.4, 1)] == [0, 0.5, 1, 2, 2]


def test_cyclical_annealing_starts_again_in_each_cycle_and_ends_whole() -> None:
    config = ObjectiveConfig(annealing="cyclical", annealing_fraction=0.5, cycles=2)
    weights = [kl_weight(config, at) for at in (0, 0.125, 0.25, 0.49, 0.5, 0.625, 0.9, 1)]
    assert weights == [0, 0.5, 1, 1, 0, 0.5, 1, 1]


def test_the_weight_in_the_bound_of_a_draw_is_its_importance_weight() -> None:
    model = MlpConfig(latent_size=2, hidden_sizes=(5,)).build(Layout((1, 4, 4)))
    generator = torch.Generator().manual_seed(0)
    observations = torch.rand(6, 1, 4, 4, generator=generator)
    noise = torch.randn(6, 2, generator=generator)
    latents, mean, log_variance = model.encode(observations, noise)
    posterior = torch.distributions.Normal(mean, torch.exp(0.5 * log_variance))
    prior = torch.distributions.Normal(0.0, 1.0)
    ratio = (prior.log_prob(latents) - posterior.log_prob(latents)).sum(1)
    found = model.eval().elbo_terms(observations, noise)
    torch.testing.assert_close(found.log_weight, ratio - found.distortion)


def test_an_objective_that_a_family_cannot_have_is_refused() -> None:
    model = AutoencoderConfig().build(Layout((1, 4, 4)))
    config = ObjectiveConfig(name="importance", samples=5)
    with pytest.raises(TrainingError, match=r"importance needs a Gaussian posterior.*autoencoder"):
        check_objective(config, model)
