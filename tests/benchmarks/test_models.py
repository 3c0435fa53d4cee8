"""The models that are measured."""

from pathlib import Path

import torch

from benchmarks.models import CONV, MLP, build_repository, fresh_model, multiply_adds
from service.repository import read_version

PRECISIONS = ("float32", "float16")


def test_the_decoders_have_the_size_that_the_goals_name() -> None:
    assert multiply_adds(fresh_model(MLP)) == 20 * 400 + 400 * 400 + 400 * 784
    assert 26e6 < multiply_adds(fresh_model(CONV)) < 28e6


def test_the_weights_are_the_same_every_time_and_leave_torchs_generator_alone() -> None:
    state = torch.get_rng_state()
    first, second = (fresh_model(MLP).state_dict() for _ in range(2))

    assert all(torch.equal(first[name], second[name]) for name in first)
    assert torch.equal(state, torch.get_rng_state())


def test_a_repository_has_other_precisions_beside_float32(tmp_path: Path) -> None:
    build_repository(tmp_path, [MLP], precisions=("float16",))
    graphs, halves = (read_version(tmp_path, MLP.name, 1, name).graphs for name in PRECISIONS)

    for kind in ("encoder", "decoder", "decoder_uint8"):
        assert len(halves[kind].content) < 0.6 * len(graphs[kind].content)
        assert halves[kind].outputs == graphs[kind].outputs
