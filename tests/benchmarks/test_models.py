"""The models that are measured."""

import torch

from benchmarks.models import CONV, MLP, fresh_model, multiply_adds


def test_the_decoders_have_the_size_that_the_goals_name() -> None:
    assert multiply_adds(fresh_model(MLP)) == 20 * 400 + 400 * 400 + 400 * 784
    assert 26e6 < multiply_adds(fresh_model(CONV)) < 28e6


def test_the_weights_are_the_same_every_time_and_leave_torchs_generator_alone() -> None:
    state = torch.get_rng_state()
    first, second = (fresh_model(MLP).state_dict() for _ in range(2))

    assert all(torch.equal(first[name], second[name]) for name in first)
    assert torch.equal(state, torch.get_rng_state())
