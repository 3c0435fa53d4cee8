from pathlib import Path

import pytest

from training.__main__ import main
from training.checkpoint import load_run
from training.config import from_json, to_json
from training.models import build_model
from training.presets import presets

SHAPES = {"digits": (1, 8, 8), "mnist": (1, 28, 28)}


@pytest.mark.parametrize("name", presets())
def test_a_preset_is_named_after_its_data_set(name: str) -> None:
    config = presets()[name].config
    assert config.preset == name
    assert name.startswith(config.data.name)


@pytest.mark.parametrize("name", presets())
def test_a_preset_makes_a_model_of_its_observations(name: str) -> None:
    config = presets()[name].config
    shape = SHAPES[config.data.name]
    model = build_model(config.model, shape)
    assert model.observation_shape == shape
    assert model.latent_size == config.model.latent_size


@pytest.mark.parametrize("name", presets())
def test_a_preset_survives_json(name: str) -> None:
    config = presets()[name].config
    assert from_json(to_json(config)) == config


@pytest.mark.parametrize("name", presets())
def test_a_preset_knows_no_path_of_any_machine(name: str) -> None:
    assert presets()[name].config.data.path is None


@pytest.mark.parametrize("name", presets())
def test_a_description_is_one_line(name: str) -> None:
    description = presets()[name].description
    assert description
    assert "\n" not in description


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in presets() if name.startswith("digits")])
def test_a_digits_preset_reaches_its_number(name: str, tmp_path: Path) -> None:
    assert main(["fit", name, "--out", str(tmp_path / "run")]) == 0

    metrics = load_run(tmp_path / "run").metrics
    assert metrics["elbo"] is not None
    assert -metrics["elbo"] <= presets()[name].negative_elbo
    assert metrics["active_units"] is not None
    assert metrics["active_units"] >= presets()[name].active_units
