"""Models on arrays: which noise and labels reach which graph, and what comes back."""

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.batching import BatchingOptions
from service.catalogue import Limits
from service.completion import Task, run
from service.errors import (
    Cancelled,
    InvalidRequest,
    LatentSpaceMismatch,
    ModelNotFound,
    QueueFull,
)
from service.execution import Execution
from service.loading import load_model
from service.metrics import Metrics
from service.model import Model, Models
from service.repository import Spec, read_version
from service.sampling import Stream, standard_normal
from service.session import CPU, SessionOptions
from tests.service.fake_model import FakeModel
from tests.service.fakes import Idle

OBSERVATIONS = np.arange(12, dtype=np.float32).reshape(4, 3)


@pytest.mark.parametrize("start", [0, 5, 2**63 - 3])
def test_sample_decodes_the_noise_of_its_seed(start: int) -> None:
    observations, latents = FakeModel().sample(count=3, seed=7, start=start)
    np.testing.assert_array_equal(latents, standard_normal(7, Stream.SAMPLE, start, 3, 2))
    np.testing.assert_array_equal(observations, latents * 10)


def test_noise_may_have_another_shape_than_latents() -> None:
    fake = FakeModel(with_prior=True, noise=Spec("noise", np.dtype(np.float32), (2, 3, 5)))
    fake.sample(count=4)
    assert fake.prior.inputs[0]["noise"].shape == (4, 2, 3, 5)


@pytest.mark.parametrize(
    ("noise", "items"),
    [
        ((2,), 41),  # Encode with latents: three times two numbers of four bytes in 1000
        ((100,), 2),  # and the noise of an item has to fit as well
        ((5000,), 1),
    ],
)
def test_a_request_may_ask_for_as_many_items_as_its_arrays_leave_room(
    noise: tuple[int, ...], items: int
) -> None:
    model = FakeModel(noise=Spec("noise", np.dtype(np.float32), noise)).model
    assert Limits(max_response_bytes=1000).max_items(model) == items
    assert Limits(max_request_items=1).max_items(model) == 1


@pytest.mark.parametrize("codes", [[0, 6], [3, 3]])
def test_codes_below_the_count_are_good(codes: list[int]) -> None:
    model = FakeModel().model
    model.code_count = 7
    model.check_codes(np.array(codes), "latents.data")


@pytest.mark.parametrize("codes", [[0, 7], [-1, 3], [-(2**63), 0]])
def test_codes_beyond_the_count_are_refused(codes: list[int]) -> None:
    model = FakeModel().model
    model.code_count = 7
    with pytest.raises(InvalidRequest, match="expected codes from 0 to 6") as caught:
        model.check_codes(np.array(codes), "latents.data")
    assert caught.value.field == "latents.data"


def test_the_noise_of_many_items_is_drawn_on_another_thread(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    left = threading.Event()

    def draw(*arguments: Any) -> np.ndarray:
        assert left.wait(30)
        return standard_normal(*arguments)

    monkeypatch.setattr("service.model.standard_normal", draw)
    waiting = FakeModel().model.sample(5000, 7, 0, 1.0, (), Execution(None))
    drawn = waiting.send(None)  # as a transport does, whose thread goes on meanwhile
    done = threading.Event()
    drawn.when_done(done.set)
    left.set()
    assert done.wait(30)
    with pytest.raises(StopIteration) as stopped:
        waiting.send(None)
    np.testing.assert_array_equal(
        stopped.value.value[1], standard_normal(7, Stream.SAMPLE, 0, 5000, 2)
    )


@pytest.mark.parametrize("temperature", [0.0, 0.5, 2.0])
def test_the_temperature_scales_the_noise(temperature: float) -> None:
    _, latents = FakeModel().sample(temperature=temperature)
    expected = standard_normal(7, Stream.SAMPLE, 0, 3, 2) * np.float32(temperature)
    np.testing.assert_array_equal(latents, expected)
    assert latents.dtype == np.float32


def test_a_prior_graph_makes_the_latents_from_the_noise() -> None:
    observations, latents = FakeModel(with_prior=True).sample()
    np.testing.assert_array_equal(latents, standard_normal(7, Stream.SAMPLE, 0, 3, 2) + 100)
    np.testing.assert_array_equal(observations, latents * 10)


def test_encode_without_a_seed_draws_nothing() -> None:
    fake = FakeModel()
    posterior = run(fake.model.encode(OBSERVATIONS, None, 0, (), Execution(None)))
    np.testing.assert_array_equal(posterior.mean, OBSERVATIONS[:, :2])
    np.testing.assert_array_equal(posterior.log_variance, np.zeros((4, 2)))
    assert posterior.latents is None
    assert not fake.encoder.inputs[0]["noise"].any()


def test_encode_with_a_seed_draws_with_the_noise_of_its_own_stream() -> None:
    posterior = run(FakeModel().model.encode(OBSERVATIONS, 7, 5, (), Execution(None)))
    noise = standard_normal(7, Stream.ENCODE, 5, 4, 2)
    np.testing.assert_array_equal(posterior.latents, OBSERVATIONS[:, :2] + noise)


@pytest.mark.parametrize("space", [None, "space"])
def test_decode_gives_the_observations_of_latents(space: str | None) -> None:
    latents = np.ones((2, 2), np.float32)
    np.testing.assert_array_equal(FakeModel().decode(latents, space), latents * 10)


@pytest.mark.parametrize("space", ["", "other", "Space"])
def test_latents_of_another_space_are_refused_before_they_run(space: str) -> None:
    fake = FakeModel()
    with pytest.raises(LatentSpaceMismatch, match="models/fake/versions/1 has space"):
        fake.decode(np.ones((2, 2), np.float32), space)
    assert fake.decoder.entries == []


@pytest.mark.parametrize(("labels", "expected"), [([1], [1, 1, 1]), ([0, 1, 0], [0, 1, 0])])
def test_labels_are_one_for_all_items_or_one_for_each(
    labels: list[int], expected: list[int]
) -> None:
    fake = FakeModel(labels=("cat", "dog"), with_prior=True)
    fake.sample(count=3, labels=labels)
    assert fake.prior.inputs[0]["label"].tolist() == expected
    assert fake.decoder.inputs[0]["label"].tolist() == expected
    assert fake.decoder.inputs[0]["label"].dtype == np.int64


def test_labels_reach_the_encoder() -> None:
    fake = FakeModel(labels=("cat", "dog"))
    run(fake.model.encode(OBSERVATIONS, None, 0, [1], Execution(None)))
    assert fake.encoder.inputs[0]["label"].tolist() == [1, 1, 1, 1]


@pytest.mark.parametrize(
    ("labels", "description"),
    [
        ([], "expected 1 or 3 labels, not 0"),
        ([0, 1], "expected 1 or 3 labels, not 2"),
        ([0] * 4, "expected 1 or 3 labels, not 4"),
        ([2], "expected numbers from 0 to 1"),
        ([0, -1, 0], "expected numbers from 0 to 1"),
    ],
)
def test_wrong_labels_are_refused(labels: list[int], description: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        FakeModel(labels=("cat", "dog")).sample(count=3, labels=labels)
    assert (caught.value.field, caught.value.description) == ("labels", description)


def test_the_only_item_has_the_only_label() -> None:
    for labels in ([], [0, 1]):
        with pytest.raises(InvalidRequest, match=f"^labels: expected 1 label, not {len(labels)}$"):
            FakeModel(labels=("cat", "dog")).sample(count=1, labels=labels)


def test_labels_for_a_model_without_labels_are_refused() -> None:
    with pytest.raises(InvalidRequest, match="not conditional") as caught:
        FakeModel().sample(labels=[0])
    assert caught.value.field == "labels"


def test_a_model_without_labels_gives_its_graphs_none() -> None:
    fake = FakeModel()
    fake.sample()
    assert set(fake.decoder.inputs[0]) == {"latents"}


def test_the_deadline_reaches_every_batcher() -> None:
    fake = FakeModel(with_prior=True)
    fake.sample(deadline=12.5)
    assert [fake.prior.entries[0].deadline, fake.decoder.entries[0].deadline] == [12.5, 12.5]


def test_the_error_of_an_entry_reaches_the_caller() -> None:
    fake = FakeModel()
    fake.decoder.error = QueueFull(3.0)
    with pytest.raises(QueueFull) as caught:
        fake.sample()
    assert caught.value is fake.decoder.error


def gone(fake: FakeModel) -> list[BaseException | None]:
    """How a decode ends whose caller goes away while it waits."""
    fake.decoder.function = None  # never answers
    ended: list[BaseException | None] = []
    decoding = fake.model.decode(np.ones((2, 2), np.float32), None, (), Execution(None))
    task = Task(decoding, lambda value, error: ended.append(error))
    task.step()
    task.cancel()
    return ended


def test_a_caller_that_goes_away_cancels_its_entry() -> None:
    fake = FakeModel()
    [error] = gone(fake)
    assert isinstance(error, Cancelled)
    assert fake.decoder.entries[0].cancelled


def test_an_answer_for_a_caller_that_has_gone_is_dropped() -> None:
    fake = FakeModel()
    ended = gone(fake)
    [entry] = fake.decoder.entries
    entry.outputs = {}
    entry.on_done(entry)
    assert len(ended) == 1


def test_a_name_without_a_version_stands_for_the_newest_one() -> None:
    old, new = FakeModel(version=9).model, FakeModel(version=10).model
    models = Models([new, old])
    assert models.get("models/fake") is new
    assert [models.is_default(model) for model in (old, new)] == [False, True]
    assert models.all == (old, new)


def test_a_version_can_be_asked_for_by_its_number() -> None:
    old, new = FakeModel(version=9).model, FakeModel(version=10).model
    assert Models([old, new]).get("models/fake/versions/9") is old


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("models/other", "model other"),
        ("models/Fake", "model Fake"),
        ("models/fake/versions/2", "version 2 of model fake"),
        ("models/", "model of that name"),
        ("models/../fake", "version of that number of model of that name"),
        ("models/fake/", "version of that number of model fake"),
        ("models/fake/versions/", "version of that number of model fake"),
        ("models/fake/versions/01", "version of that number of model fake"),
        ("models/fake/2", "version of that number of model fake"),
        ("models/" + "a" * 129, "model of that name"),
        ("models/a\n", "model of that name"),
    ],
)
def test_an_unknown_model_is_named_if_it_could_be_one(name: str, told: str) -> None:
    with pytest.raises(ModelNotFound) as caught:
        Models([FakeModel().model]).get(name)
    assert str(caught.value) == f"no {told} is served; ListModels lists what is"


@pytest.mark.parametrize("name", ["", "fake", "model/fake", "/models/fake", " models/fake"])
def test_a_name_that_cannot_be_a_model_is_refused_by_its_field(name: str) -> None:
    with pytest.raises(InvalidRequest, match='expected "models/NAME"') as caught:
        Models([FakeModel().model]).get(name, field="name")
    assert caught.value.field == "name"


def test_real_graphs_draw_the_same_items_however_a_range_is_split(
    digits_repository: Path,
) -> None:
    version = read_version(digits_repository, "digits", 1)
    model = load_model(
        version, SessionOptions(CPU, threads=1), BatchingOptions(), Metrics(), Idle()
    )

    whole, *parts = (
        run(model.sample(count, 7, start, 1.0, (), Execution(None)))
        for start, count in [(0, 100), (0, 37), (37, 63)]
    )
    for batcher in model.batchers.values():
        batcher.stop()
    assert not any(graph.content for graph in model.version.graphs.values())  # it is loaded
    observations, latents = (np.concatenate(pair) for pair in zip(*parts, strict=True))
    np.testing.assert_array_equal(whole[1], latents)
    np.testing.assert_allclose(whole[0], observations, atol=1e-6)
    assert observations.shape == (100, 1, 8, 8)


def fake_of_range(minimum: float, maximum: float) -> Model:
    version = FakeModel().model.version
    version.manifest.value_range.minimum = minimum
    version.manifest.value_range.maximum = maximum
    return Model(version, {}, CPU)


@pytest.mark.parametrize(
    ("maximum", "value", "expected"),
    [
        (1.0, 1.5, "expected values from 0 to 1"),
        (1.0, -0.5, "expected values from 0 to 1"),
        (1.0, np.nan, "expected finite values"),
        (1.0, np.inf, "expected finite values"),
        (np.inf, np.nan, "expected finite values"),
        (np.inf, np.inf, "expected finite values"),
        (np.inf, -0.5, "expected values from 0 to inf"),
    ],
)
@pytest.mark.parametrize("place", [0, 5, 11])
def test_observations_beyond_the_range_are_refused_wherever_they_are(
    maximum: float, value: float, expected: str, place: int
) -> None:
    observations = np.linspace(0, 1, 12, dtype=np.float32)
    model = fake_of_range(0.0, maximum)
    model.check_observations(observations, "start.observations")
    observations[place] = value
    with pytest.raises(InvalidRequest, match=expected) as caught:
        model.check_observations(observations, "start.observations")
    assert caught.value.field == "start.observations.data"
