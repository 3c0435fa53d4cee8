import pytest
import torch

from tests.families import MODELS
from training.models import Layout, build_model


@pytest.mark.parametrize("family", MODELS)
def test_importance_weights_are_made_in_eval_mode_alone(family: str) -> None:
    """A fit reads none, and making them would take a part of each of its steps."""
    layout = Layout((1, 8, 8), label_count=10)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = build_model(MODELS[family], layout)
        observations = torch.rand(2, *layout.observation_shape)
        noise = torch.randn(2, *model.noise_shape)
    label = torch.tensor([3, 4])

    model.train()
    assert model.elbo_terms(observations, noise, label).log_weight is None
    model.eval()
    weight = model.elbo_terms(observations, noise, label).log_weight
    assert weight is not None
    assert weight.shape == (2,)
