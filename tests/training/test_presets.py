from dataclasses import replace
from pathlib import Path

import pytest

from training.__main__ import main
from training.checkpoint import load_run
from training.config import from_json, to_json
from training.errors import TrainingError
from training.models import Layout, build_model
from training.objectives import check_objective
from training.presets import presets, read_preset, written

LAYOUTS = {
    "digits": Layout((1, 8, 8), 10, 16),
    "mnist": Layout((1, 28, 28), 10, 255),
    "shapes": Layout((1, 64, 64), None, 1),
    "linear-gaussian": Layout((1, 1, 8), None, None),
    "imagefolder": Layout((3, 48, 64), 3, 255),
}
NAMES = {
    "digits",
    "digits-conv",
    "linear-gaussian",
    "mnist-mlp",
    "mnist-conv",
    "mnist-iwae50",
    "mnist-conditional",
    "mnist-collapsed",
    "mnist-cured",
    "shapes-beta",
    "shapes-beta-tc",
}


@pytest.mark.parametrize("name", presets())
def test_a_preset_is_named_after_its_data_set(name: str) -> None:
    config = presets()[name].config
    assert config.preset == name
    assert name.startswith(config.data.name)


@pytest.mark.parametrize("name", presets())
def test_a_preset_makes_a_model_of_its_observations(name: str) -> None:
    config = presets()[name].config
    layout = LAYOUTS[config.data.name]
    model = build_model(config.model, layout)
    assert model.observation_shape == layout.observation_shape
    if hasattr(config.model, "latent_size"):
        assert model.latent_shape == (config.model.latent_size,)
    check_objective(config.objective, model)


@pytest.mark.parametrize("name", presets())
def test_a_preset_survives_json(name: str) -> None:
    config = presets()[name].config
    assert from_json(to_json(config)) == config


@pytest.mark.parametrize("name", presets())
def test_a_preset_that_is_written_out_is_the_same(name: str) -> None:
    config = presets()[name].config
    assert read_preset(name, written(config)).config == config


@pytest.mark.parametrize("name", presets())
def test_a_preset_knows_no_path_of_any_machine(name: str) -> None:
    assert presets()[name].config.data.path is None


@pytest.mark.parametrize("name", presets())
def test_a_description_is_one_line(name: str) -> None:
    description = presets()[name].description
    assert description
    assert "\n" not in description


def test_the_promised_presets_are_there() -> None:
    assert set(presets()) >= NAMES


def test_the_cured_twin_differs_from_the_collapsed_one_by_the_remedy_alone() -> None:
    collapsed, cured = (presets()[f"mnist-{name}"].config for name in ("collapsed", "cured"))
    assert cured.objective.free_bits > 0
    objective = replace(cured.objective, annealing="none", annealing_fraction=0.5, free_bits=0.0)
    assert replace(cured, preset="mnist-collapsed", objective=objective) == collapsed


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (
            "description = 'x'\nepoch = 3",
            "unknown configuration key 'epoch'; did you mean 'epochs'",
        ),
        (
            "description = 'x'\n[goals]\nnegative_elb = 3",
            "key 'goals.negative_elb'; did you mean 'negative_elbo'",
        ),
        ("description = 'x'\n[model]\nfamily = 'vea'", "model.family must be one of mlp, conv"),
        ("description = 'x'\n[model]\nlatent_size = 3", "model.family must be one of mlp, conv"),
        ("description = ", "Invalid value"),
    ],
)
def test_a_preset_is_read_strictly(text: str, complaint: str) -> None:
    with pytest.raises(TrainingError, match=f"preset mine: .*{complaint}"):
        read_preset("mine", text)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [name for name, preset in presets().items() if name.startswith("digits") and str(preset.goals)],
)
def test_a_digits_preset_reaches_its_number(name: str, tmp_path: Path) -> None:
    assert main(["fit", name, "--out", str(tmp_path / "run")]) == 0

    metrics = load_run(tmp_path / "run").metrics
    assert metrics["elbo"] is not None
    goals = presets()[name].goals
    assert goals.negative_elbo is None or -metrics["elbo"] <= goals.negative_elbo
    assert metrics["active_units"] is not None
    assert metrics["active_units"] >= (goals.active_units or 0)
