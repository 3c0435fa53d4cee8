"""What a model without a graph for uint8 refuses, by the field that asked for it."""

from collections.abc import Callable

import numpy as np
import pytest
from vae.v1 import vae_service_pb2 as vae_pb

from service.completion import run
from service.errors import InvalidRequest
from service.images import to_png
from service.model import Model
from service.observations import Observing, check_encoding
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
