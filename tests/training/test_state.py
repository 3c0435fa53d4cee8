import torch
from torch import nn

from training.config import OptimizerConfig
from training.state import initial_state


def test_the_gradients_of_the_fitted_weights_are_parts_of_one_vector_for_good() -> None:
    model = nn.Sequential(nn.Linear(3, 5), nn.Linear(5, 1))
    model[0].bias.requires_grad_(False)
    state = initial_state(model, OptimizerConfig(ema_decay=0.9), seed=0, device="cpu")
    first = state.snapshot()
    for _ in range(2):
        state.gradient.zero_()
        model(torch.ones(2, 3)).sum().backward()
        fitted = [p for p in model.parameters() if p.requires_grad]
        parts = [p.grad.flatten() for p in fitted if p.grad is not None]
        assert len(parts) == 3
        assert model[1].bias.grad.item() == 2
        square = sum(part.square().sum() for part in parts)
        torch.testing.assert_close(state.gradient.square().sum(), square)
        state.optimizer.step()
        state.restore(*first)

    state.gradient.zero_()

    assert all(not p.grad.any() for p in fitted)
