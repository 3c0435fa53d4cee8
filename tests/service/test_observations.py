"""What a model without a graph for uint8 refuses, by the field that asked for it."""

import threading
from collections.abc import Callable

import numpy as np
import pytest
from vae.v1 import vae_service_pb2 as vae_pb

from service.completion import run
from service.errors import InvalidRequest
from service.images import from_files, to_png
from service.model import Model
from service.observations import Fields, Observing, check_encoding
from service.tensors import from_array
from tests.service.fake_model import FakeModel

LEVELS = np.zeros((1, 1, 2, 2), np.uint8)
WITHOUT = "models/fake/versions/1 has no graph for uint8, nor for image files"


def read(**fields: object) -> Callable[[Model], object]:
    return lambda model: run(Observing().read(vae_pb.EncodeRequest(**fields), model, 4))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("ask", "field", "expected"),
    [
        (
            lambda model: check_encoding(vae_pb.OBSERVATION_ENCODING_PNG, model),
            "observation_encoding",
            "expected float32 or float16",
        ),
        (
            lambda model: check_encoding(vae_pb.OBSERVATION_ENCODING_UINT8, model),
            "observation_encoding",
            "expected float32 or float16",
        ),
        (read(images=to_png(LEVELS)), "images", "expected observations"),
        (read(observations=from_array(LEVELS)), "observations.data_type", "expected float32"),
    ],
    ids=["png", "uint8", "images", "levels"],
)
def test_what_needs_uint8_is_refused_before_anything_runs(
    ask: Callable[[Model], object], field: str, expected: str
) -> None:
    fake = FakeModel()
    fake.model.observation_shape = (1, 2, 2)
    with pytest.raises(InvalidRequest) as caught:
        ask(fake.model)
    assert (caught.value.field, caught.value.description) == (field, f"{expected}: {WITHOUT}")


def test_floats_need_no_graph_for_uint8() -> None:
    model = FakeModel().model
    assert not check_encoding(vae_pb.OBSERVATION_ENCODING_FLOAT16, model)


def test_files_are_read_and_written_on_another_thread_than_the_calls(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    threads: list[str] = []

    def noting(function: Callable[..., object]) -> Callable[..., object]:
        def noted(*arguments: object) -> object:
            threads.append(threading.current_thread().name)
            return function(*arguments)

        return noted

    monkeypatch.setattr("service.observations.to_png", noting(to_png))
    monkeypatch.setattr("service.observations.from_files", noting(from_files))
    fake, observing = FakeModel(), Observing()
    fake.model.observation_shape = (1, 2, 2)
    monkeypatch.setattr(fake.model, "batchers", {"encoder_uint8": fake.encoder})
    request = vae_pb.EncodeRequest(images=to_png(LEVELS))
    levels = run(observing.read(request, fake.model, 4))
    run(observing.write(Fields(1, 2), levels, vae_pb.OBSERVATION_ENCODING_PNG))

    assert len(threads) == 2
    assert all(name.startswith("images") for name in threads)
