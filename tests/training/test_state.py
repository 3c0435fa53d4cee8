import copy

import pytest
import torch
from torch import nn

from training.config import OptimizerConfig
from training.state import average_weights, initial_state


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
        state.optimizer.step([state.gradient], 1e-3)
        state.restore(*first)

    state.gradient.zero_()

    assert all(not p.grad.any() for p in fitted)


def test_one_vector_is_moved_as_each_weight_would_be() -> None:
    """Adam and the mean on the vector, beside torch's own on the parameters one by one."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 5), nn.Linear(5, 1))
    model[1].weight.requires_grad_(False)
    apart = copy.deepcopy(model)
    mean = copy.deepcopy(apart)
    fitted = [p for p in apart.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(fitted, lr=0.1)
    state = initial_state(model, OptimizerConfig(0.1, ema_decay=0.5), seed=0, device="cpu")
    for step in range(3):
        state.counters.step = 9 + step
        state.gradient.zero_()
        for each in (model, apart):
            each.zero_grad(set_to_none=False)
            each(torch.tensor([[1.0, 2.0, 3.0]])).square().sum().backward()
        state.optimizer.step([state.gradient], 0.1)
        optimizer.step()
        average_weights(state, 0.5)
        for old, new in zip(mean.parameters(), apart.parameters(), strict=True):
            old.data.lerp_(new.data, 0.5)

    assert state.averaged is not None
    assert not torch.equal(apart[0].weight, mean[0].weight)
    torch.testing.assert_close(model.state_dict(), apart.state_dict())
    torch.testing.assert_close(state.averaged.state_dict(), mean.state_dict())


def test_what_is_saved_goes_by_the_names_of_the_weights() -> None:
    model = nn.Linear(3, 2)
    state = initial_state(model, OptimizerConfig(), seed=0, device="cpu")
    model(torch.ones(1, 3)).sum().backward()
    state.optimizer.step([state.gradient], 1e-3)
    tensors, _ = state.snapshot()
    assert tensors["optimizer.weight.exp_avg"].shape == (2, 3)
    assert tensors["optimizer.bias.step"].item() == 1
    assert tensors["optimizer.bias.exp_avg"].tolist() == pytest.approx([0.1, 0.1])


def test_a_fit_goes_on_on_another_kind_of_device_with_draws_of_its_own() -> None:
    """CUDA's generator has a state of 16 bytes, which the CPU's cannot take."""
    state = initial_state(nn.Linear(3, 2), OptimizerConfig(), seed=0, device="cpu")
    tensors, counters = state.snapshot()
    draws = []
    for offset in (7, 7, 8):
        tensors["generator"] = torch.tensor([0] * 15 + [offset], dtype=torch.uint8)
        state.restore(tensors, counters)
        draws.append(torch.rand(4, generator=state.generator))
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
