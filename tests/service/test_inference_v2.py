"""The Open Inference Protocol where no exported model leads: loading, labels, priors, versions."""

import time
from collections.abc import Coroutine
from typing import Any

import grpc
import numpy as np
import pytest
from inference import inference_service_pb2 as pb

from service.batching import BatchingOptions
from service.catalogue import Catalogue, Limits
from service.completion import run
from service.errors import InvalidRequest, ModelNotFound, ModelNotReady
from service.inference_v2 import InferenceV2
from service.model import Models
from service.statistics import GraphStatistics
from service.status import status_of
from service.transport import Call
from service.transport.spliced import Spliced
from tests.service.fake_model import FakeModel

CALL = Call(None)
CONTENTS = {"FP32": "fp32_contents", "INT64": "int64_contents", "UINT8": "uint_contents"}
DATATYPES = {"float32": "FP32", "int64": "INT64", "uint8": "UINT8"}


def answer(handling: Coroutine[Any, None, Spliced]) -> pb.ModelInferResponse:
    """The message that a handler answers with."""
    return pb.ModelInferResponse.FromString(run(handling).SerializeToString())


def served(*fakes: FakeModel, delay: float = 0.0) -> InferenceV2:
    for fake in fakes:
        fake.decoder.options = BatchingOptions((1, 2, 4), max_queue_delay=delay)
    inference = InferenceV2(lambda *names: GraphStatistics(), lambda: True)
    if fakes:
        catalogue = Catalogue(Limits())
        catalogue.publish(Models([fake.model for fake in fakes]))
        inference.publish(*catalogue.snapshot())
    return inference


def request(
    name: str, arrays: dict[str, np.ndarray], *, typed: bool = False, **fields: Any
) -> pb.ModelInferRequest:
    message = pb.ModelInferRequest(model_name=name, **fields)
    for key, array in arrays.items():
        datatype = DATATYPES[array.dtype.name]
        tensor = message.inputs.add(name=key, datatype=datatype, shape=array.shape)
        if typed:
            getattr(tensor.contents, CONTENTS[datatype]).extend(array.ravel().tolist())
        else:
            message.raw_input_contents.append(array.tobytes())
    return message


def infer(
    fake: FakeModel, name: str, arrays: dict[str, np.ndarray], **fields: Any
) -> pb.ModelInferResponse:
    return answer(served(fake).model_infer(request(name, arrays, **fields), CALL))


def latents(items: int = 2) -> np.ndarray:
    return np.arange(items * 2, dtype=np.float32).reshape(items, 2)


def test_while_the_models_load_none_is_ready_and_calls_are_refused_for_now() -> None:
    loading = served()

    assert not run(loading.model_ready(pb.ModelReadyRequest(name="any"), CALL)).ready
    with pytest.raises(ModelNotReady) as caught:
        answer(loading.model_infer(request("fake.decoder", {"latents": latents()}), CALL))
    assert status_of(caught.value)[0] is grpc.StatusCode.UNAVAILABLE
    assert not run(loading.model_statistics(pb.ModelStatisticsRequest(), CALL)).model_stats


def test_readiness_of_the_server_is_that_of_the_service() -> None:
    answers = iter([True, False])
    inference = InferenceV2(lambda *names: GraphStatistics(), lambda: next(answers))
    ready = [run(inference.server_ready(pb.ServerReadyRequest(), CALL)).ready for _ in range(2)]
    assert ready == [True, False]


@pytest.mark.parametrize("typed", [False, True])
def test_the_label_of_a_conditional_model_is_an_input(typed: bool) -> None:
    fake = FakeModel(labels=["zero", "one"])
    label = np.array([1, 0], np.int64)

    infer(fake, "fake.decoder", {"latents": latents(), "label": label}, typed=typed)

    assert fake.decoder.inputs[0]["label"].tolist() == [1, 0]


@pytest.mark.parametrize(
    ("label", "field", "expected"),
    [
        (np.array([0, 2], np.int64), "label.data", "numbers from 0 to 1"),
        (np.array([-1, 0], np.int64), "label.data", "numbers from 0 to 1"),
        (np.array([0], np.int64), "inputs", "the same number of items"),
        (np.array([[0], [1]], np.int64), "label.shape", "expected [items], not [2, 1]"),
        (np.array([0, 1], np.uint8), "label.datatype", "expected INT64"),
        (None, "inputs", "label is missing"),
    ],
)
def test_a_label_that_cannot_be_is_refused(
    label: np.ndarray | None, field: str, expected: str
) -> None:
    arrays = {"latents": latents()} | ({} if label is None else {"label": label})

    with pytest.raises(InvalidRequest) as caught:
        infer(FakeModel(labels=["zero", "one"]), "fake.decoder", arrays)

    assert caught.value.field == field
    assert expected in caught.value.description


def test_a_prior_takes_its_noise_and_gives_latents() -> None:
    answer = infer(FakeModel(with_prior=True), "fake.prior", {"noise": latents()})

    np.testing.assert_array_equal(
        np.frombuffer(answer.raw_output_contents[0], "<f4").reshape(2, 2), latents() + 100
    )


def test_a_prior_without_noise_is_refused_as_nothing_says_how_many_items() -> None:
    with pytest.raises(InvalidRequest, match="noise is missing"):
        infer(FakeModel(with_prior=True), "fake.prior", {})


def test_a_model_without_a_prior_graph_has_none_here() -> None:
    with pytest.raises(ModelNotFound):
        infer(FakeModel(), "fake.prior", {"noise": latents()})


def test_noise_that_draws_nothing_is_zero_and_has_no_seed() -> None:
    fake = FakeModel()
    arrays = {"observations": np.ones((2, 3), np.float32)}

    answer = infer(fake, "fake.encoder", arrays, outputs=[{"name": "mean"}])

    assert not answer.parameters
    assert not fake.encoder.inputs[0]["noise"].any()


@pytest.mark.parametrize("seed", [0, 7, 2**63 - 1, 2**63, 2**64 - 1])
def test_a_seed_comes_back_as_the_integer_that_holds_it(seed: int) -> None:
    given = {"seed": pb.InferParameter(uint64_param=seed)}
    arrays = {"observations": np.ones((1, 3), np.float32)}

    answer = infer(FakeModel(), "fake.encoder", arrays, parameters=given)

    returned = answer.parameters["seed"]
    assert getattr(returned, returned.WhichOneof("parameter_choice")) == seed
    assert returned.WhichOneof("parameter_choice") == (
        "int64_param" if seed < 2**63 else "uint64_param"
    )


@pytest.mark.parametrize(("own", "expected"), [(None, 2.0), (1.0, 1.0), (9.0, 2.0)])
def test_a_timeout_in_microseconds_is_a_deadline_too(own: float | None, expected: float) -> None:
    fake, now = FakeModel(), time.monotonic()
    message = request("fake.decoder", {"latents": latents()})
    message.parameters["timeout"].int64_param = 2_000_000
    answer(served(fake).model_infer(message, Call(None if own is None else now + own)))

    assert fake.decoder.entries[0].deadline == pytest.approx(now + expected, abs=0.5)


def test_the_newest_version_is_the_default_and_each_can_be_named() -> None:
    inference = served(FakeModel(version=1), FakeModel(version=3))

    def version(asked: str) -> str:
        message = request("fake.decoder", {"latents": latents()}, model_version=asked)
        return answer(inference.model_infer(message, CALL)).model_version

    assert [version(asked) for asked in ("", "1", "3")] == ["3", "1", "3"]
    metadata = run(inference.model_metadata(pb.ModelMetadataRequest(name="fake.decoder"), CALL))
    assert metadata.versions == ["1", "3"]


@pytest.mark.parametrize(
    ("name", "version", "count"),
    [("", "", 4), ("fake.decoder", "", 2), ("fake.decoder", "1", 1)],
)
def test_statistics_are_of_one_version_or_of_several(name: str, version: str, count: int) -> None:
    inference = served(FakeModel(version=1), FakeModel(version=3))
    asked = pb.ModelStatisticsRequest(name=name, version=version)
    assert len(run(inference.model_statistics(asked, CALL)).model_stats) == count


def test_the_configuration_says_how_requests_are_batched() -> None:
    inference = served(FakeModel(), delay=0.0015)
    asked = pb.ModelConfigRequest(name="fake.decoder")
    config = run(inference.model_config(asked, CALL)).config
    assert config.max_batch_size == 4
    assert config.dynamic_batching.preferred_batch_size == [1, 2, 4]
    assert config.dynamic_batching.max_queue_delay_microseconds == 1500
    levels = config.dynamic_batching.priority_levels, config.dynamic_batching.default_priority_level
    assert levels == (3, 2)
