import json
from dataclasses import asdict
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training.config import (
    DataConfig,
    FitConfig,
    OptimizerConfig,
    from_json,
    to_json,
    with_overrides,
)
from training.errors import TrainingError
from training.models import ConvConfig, MlpConfig
from training.objectives import ObjectiveConfig

sizes = st.integers(1, 10**6)
positive = st.floats(min_value=1e-6, max_value=1e6)
model_settings: dict[str, st.SearchStrategy[Any]] = {
    "latent_size": sizes,
    "hidden_sizes": st.lists(sizes, max_size=3).map(tuple),
    "likelihood": st.sampled_from(["bernoulli", "gaussian", "discretized_logistic"]),
    "activation": st.sampled_from(["relu", "tanh", "silu", "gelu"]),
    "gaussian_std": st.sampled_from(["learned", "optimal"]) | positive,
}
channels = st.lists(sizes, min_size=1, max_size=3).map(tuple)
models = st.builds(MlpConfig, **model_settings) | st.builds(
    ConvConfig, channels=channels, **model_settings
)
limits = st.none() | sizes
data_sets = st.builds(
    DataConfig,
    name=st.sampled_from(["digits", "mnist"]),
    path=st.none() | st.text().filter(lambda text: text.lower() != "none"),
    train_limit=limits,
    test_limit=limits,
)
configs = st.builds(
    FitConfig,
    preset=st.text(),
    data=data_sets,
    model=models,
    epochs=sizes,
    least_steps=sizes,
    batch_size=sizes,
    objective=st.builds(ObjectiveConfig, kl_weight=st.floats(0, 1e6)),
    optimizer=st.builds(OptimizerConfig, learning_rate=positive),
    evaluate_every=sizes,
    seed=st.integers(0, 2**63 - 1),
)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)
quick = settings(max_examples=60, deadline=None, database=None)


def as_text(value: object) -> str:
    """How a value is written after --set KEY=."""
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


@quick
@given(configs)
def test_a_configuration_survives_json(config: FitConfig) -> None:
    assert from_json(json.loads(json.dumps(to_json(config)))) == config


@quick
@given(configs)
def test_every_setting_can_be_given_as_text(config: FitConfig) -> None:
    sections = asdict(config)
    overrides = {
        f"{section}.{name}": as_text(value)
        for section in ("data", "model", "objective", "optimizer")
        for name, value in sections.pop(section).items()
    }
    del sections["preset"]
    overrides |= {name: as_text(value) for name, value in sections.items()}

    assert with_overrides(FitConfig(config.preset), overrides) == config


@quick
@given(st.sampled_from(sorted(asdict(MlpConfig()))), json_values)
def test_a_model_value_is_taken_as_it_is_or_refused(name: str, value: object) -> None:
    document = to_json(FitConfig("any"))
    document["model"][name] = value
    try:
        config = from_json(document)
    except TrainingError:
        return
    assert to_json(config)["model"][name] == value


def test_overrides_leave_everything_else_as_it_was() -> None:
    config = FitConfig("any", DataConfig("mnist", path="there"), epochs=7)

    changed = with_overrides(config, {"model.latent_size": "2", "optimizer.learning_rate": "3e-4"})

    expected = FitConfig(
        "any",
        config.data,
        MlpConfig(latent_size=2),
        optimizer=OptimizerConfig(learning_rate=3e-4),
        epochs=7,
    )
    assert changed == expected


def test_no_hidden_sizes_are_written_as_nothing() -> None:
    changed = with_overrides(FitConfig("any"), {"model.hidden_sizes": ""})
    assert isinstance(changed.model, MlpConfig)
    assert changed.model.hidden_sizes == ()


def test_another_family_keeps_the_settings_that_both_know() -> None:
    config = FitConfig("any", model=MlpConfig(latent_size=3, likelihood="gaussian"))
    changed = with_overrides(config, {"model.family": "conv", "model.channels": "4,8"})
    expected = ConvConfig(3, (200, 200), (4, 8), likelihood="gaussian", activation="tanh")
    assert changed.model == expected


@pytest.mark.parametrize(
    ("key", "near"),
    [
        ("modle.latent_size", "did you mean 'model.latent_size'"),
        ("epoch", "did you mean 'epochs'"),
        ("model.chanels", "did you mean 'data.channels'"),  # family mlp has none
        ("preset", "did you mean|known"),  # says where the settings came from; is none itself
        ("", "known: batch_size, .*seed"),
    ],
)
def test_an_unknown_setting_is_refused_with_the_nearest(key: str, near: str) -> None:
    with pytest.raises(TrainingError, match=f"unknown setting '{key}'; ({near})"):
        with_overrides(FitConfig("any"), {key: "1"})


@pytest.mark.parametrize(
    ("key", "text", "expected"),
    [
        ("epochs", "ten", "epochs must be an integer, not 'ten'"),
        ("epochs", "1.5", "epochs must be an integer, not '1.5'"),
        ("epochs", "0", "epochs must be at least 1"),
        ("batch_size", "0", "batch_size must be at least 1"),
        ("evaluate_every", "-1", "evaluate_every must be at least 1"),
        ("optimizer.learning_rate", "fast", "learning_rate must be a number, not 'fast'"),
        ("optimizer.learning_rate", "nan", "learning_rate must be positive and finite"),
        ("optimizer.learning_rate", "inf", "learning_rate must be positive and finite"),
        ("objective.kl_weight", "-1", "kl_weight must be finite and not negative"),
        ("objective.samples", "5", "objective.samples and dreg need name importance"),
        ("objective.dreg", "yes", "objective.dreg must be true or false, not 'yes'"),
        ("optimizer.beta2", "1", "optimizer.beta1 and beta2 must be below 1"),
        ("patience", "1", "patience needs held_out items"),
        ("seed", str(2**63), "seed must be between 0"),
        ("data.name", "cifar", "data.name must be one of digits, mnist, "),
        ("data.test_limit", "0", "data.test_limit must be at least 1"),
        ("model.hidden_sizes", "8,x", "model.hidden_sizes must be an integer, not 'x'"),
        ("model.hidden_sizes", "8,0", "model.hidden_sizes must be at least 1"),
        ("model.latent_size", "none", "model.latent_size must be an integer, not 'none'"),
        ("model.family", "vea", "model.family must be one of mlp, conv"),
        ("model.gaussian_std", "best", "must be a number or one of learned, optimal, not 'best'"),
        ("model.gaussian_std", "0", "model.gaussian_std must be positive and finite"),
    ],
)
def test_a_wrong_text_is_refused_with_its_key(key: str, text: str, expected: str) -> None:
    with pytest.raises(TrainingError) as raised:
        with_overrides(FitConfig("any"), {key: text})
    assert expected in str(raised.value)


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        (None, "epochs", "3"),
        (None, "epochs", 3.0),
        (None, "epochs", True),
        (None, "epochs", None),
        ("optimizer", "learning_rate", False),
        pytest.param("optimizer", "learning_rate", 10**400, id="larger than any float"),
        (None, "data", []),
        (None, "model", None),
        ("data", "path", 1),
        ("model", "hidden_sizes", 8),
        ("model", "hidden_sizes", [8, "8"]),
        ("model", "family", ["mlp"]),
    ],
)
def test_a_json_value_of_a_wrong_type_is_refused(
    section: str | None, key: str, value: object
) -> None:
    document = to_json(FitConfig("any"))
    (document[section] if section else document)[key] = value
    with pytest.raises(TrainingError, match=key):
        from_json(document)


def test_an_integer_is_a_fine_number() -> None:
    document = to_json(FitConfig("any"))
    document["optimizer"]["learning_rate"] = 1
    assert from_json(document).optimizer.learning_rate == 1.0


@pytest.mark.parametrize("section", [None, "data", "objective", "optimizer"])
def test_a_key_of_a_later_version_is_refused(section: str | None) -> None:
    document = to_json(FitConfig("any"))
    (document[section] if section else document)["surprise"] = 1
    with pytest.raises(TrainingError, match=r"unknown configuration key '.*surprise'"):
        from_json(document)


@pytest.mark.parametrize("section", [None, "data", "objective", "optimizer"])
def test_a_key_that_an_earlier_version_did_not_know_takes_its_default(section: str | None) -> None:
    document = to_json(FitConfig("any"))
    (document[section] if section else document).popitem()
    assert from_json(document) == FitConfig("any")


def test_a_missing_key_without_a_default_is_refused() -> None:
    document = to_json(FitConfig("any"))
    del document["preset"]
    with pytest.raises(TrainingError, match="missing configuration key 'preset'"):
        from_json(document)
