import math

import pytest
import torch

from training.models import Layout, MlpConfig, Vae
from training.objectives.importance import importance_weighted


@pytest.fixture
def model() -> Vae:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return MlpConfig(latent_size=2, hidden_sizes=(5,)).build(Layout((1, 4, 4))).double()


@pytest.fixture
def observations() -> torch.Tensor:
    return torch.rand(6, 1, 4, 4, generator=torch.Generator().manual_seed(1)).double()


def noise(draws: int, items: int = 6) -> torch.Tensor:
    generator = torch.Generator().manual_seed(draws)
    return torch.randn(draws, items, 2, generator=generator).double()


def gradients(model: Vae, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    model.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def test_the_bound_is_the_log_of_the_mean_weight(model: Vae, observations: torch.Tensor) -> None:
    draws = noise(7)
    loss, terms = importance_weighted(model, observations, draws, None, dreg=False)
    model.eval()
    weights = torch.stack([model.elbo_terms(observations, draw).log_weight for draw in draws])
    expected = torch.logsumexp(weights, 0) - math.log(7)
    torch.testing.assert_close(terms.log_weight, expected.detach())
    torch.testing.assert_close(loss, -expected.mean())


@pytest.mark.parametrize("draws", [1, 4])
def test_the_doubly_reparameterized_loss_has_the_same_value_and_decoder_gradient(
    model: Vae, observations: torch.Tensor, draws: int
) -> None:
    plain, _ = importance_weighted(model, observations, noise(draws), None, dreg=False)
    dreg, _ = importance_weighted(model, observations, noise(draws), None, dreg=True)
    torch.testing.assert_close(dreg, plain)
    expected, actual = gradients(model, plain), gradients(model, dreg)
    for name in expected:
        if name.startswith("decoder"):
            torch.testing.assert_close(actual[name], expected[name])


def test_both_gradients_of_the_encoder_agree_on_average(
    model: Vae, observations: torch.Tensor
) -> None:
    """Over many independent draws of three samples; the doubly reparameterized varies less."""
    repeats = 3000
    items = observations[:1].expand(repeats, -1, -1, -1)
    found = {}
    for dreg in (False, True):
        loss, _ = importance_weighted(model, items, noise(3, repeats), None, dreg)
        found[dreg] = gradients(model, loss)["encoder.3.bias"]
    torch.testing.assert_close(found[True], found[False], atol=0.05, rtol=0.1)


def test_more_samples_give_a_tighter_bound(model: Vae, observations: torch.Tensor) -> None:
    items = observations.repeat(200, 1, 1, 1)
    losses = [
        importance_weighted(model, items, noise(draws, 1200), None, dreg=False)[0].item()
        for draws in (1, 5, 50)
    ]
    assert losses == sorted(losses, reverse=True)
