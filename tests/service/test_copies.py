"""What a batch is made of lies where its request arrived."""

from collections.abc import Iterator
from unittest import mock

import numpy as np
import pytest
from google.protobuf.message import Message
from inference import inference_service_pb2 as inference_pb
from vae.v1 import vae_service_pb2 as vae_pb

from service.catalogue import Catalogue, Limits
from service.completion import Completion, run
from service.inference_v2 import InferenceV2
from service.model import Models
from service.observations import Observing
from service.servicer import Servicer
from service.statistics import GraphStatistics
from service.tensors import from_array
from service.transport import Call, Response, lent, parse
from tests.service.fake_model import FakeModel

CALL = Call(None)
OBSERVATIONS = np.arange(12, dtype=np.float32).reshape(4, 3)
ENCODE = vae_pb.EncodeRequest(model="models/fake", observations=from_array(OBSERVATIONS))
INFER = inference_pb.ModelInferRequest(
    model_name="fake.encoder",
    inputs=[{"name": "observations", "datatype": "FP32", "shape": [4, 3]}],  # type: ignore[list-item]
    raw_input_contents=[OBSERVATIONS.tobytes()],
)


@pytest.fixture(autouse=True)
def every_size_is_large() -> Iterator[None]:
    with mock.patch.object(lent, "LARGE", 16):
        yield


@pytest.fixture
def fake() -> FakeModel:
    return FakeModel()


@pytest.fixture
def catalogue(fake: FakeModel) -> Catalogue:
    catalogue = Catalogue(Limits())
    catalogue.publish(Models([fake.model]))
    return catalogue


def aligned(message: Message) -> memoryview:
    """The serialized message, its tensor at an address that floats may have."""
    data = message.SerializeToString()
    shift = -data.index(OBSERVATIONS.tobytes()) % 16
    room = np.empty(shift + len(data), np.uint8).data[shift:]
    room[:] = data
    return room


class OneRequest:
    """A stream with one request."""

    call = CALL

    def __init__(self, message: object) -> None:
        self.messages = [message]
        self.responses: list[Response] = []

    def receive(self) -> Completion[object]:
        return settled(self.messages.pop() if self.messages else None)

    def send(self, response: Response) -> Completion[None]:
        self.responses.append(response)
        return settled(None)


def settled(value: object) -> Completion:
    completion: Completion[object] = Completion()
    completion.settle(value)
    return completion


def check(fake: FakeModel, data: memoryview) -> None:
    (inputs,) = fake.encoder.inputs
    assert np.shares_memory(inputs["observations"], np.frombuffer(data, np.uint8))
    assert np.array_equal(inputs["observations"], OBSERVATIONS)


def test_of_an_encode(fake: FakeModel, catalogue: Catalogue) -> None:
    data = aligned(ENCODE)
    run(Servicer(catalogue, Observing()).encode(parse(vae_pb.EncodeRequest, data), CALL))
    check(fake, data)


def test_of_a_stream_of_encodes(fake: FakeModel, catalogue: Catalogue) -> None:
    data = aligned(vae_pb.EncodeStreamRequest(request=ENCODE))
    stream = OneRequest(parse(vae_pb.EncodeStreamRequest, data))
    run(Servicer(catalogue, Observing()).encode_stream(stream))
    check(fake, data)
    assert len(stream.responses) == 1


def test_of_a_model_infer(fake: FakeModel, catalogue: Catalogue) -> None:
    inference = InferenceV2(lambda *names: GraphStatistics(), lambda: True)
    inference.publish(*catalogue.snapshot())
    data = aligned(INFER)
    run(inference.model_infer(parse(inference_pb.ModelInferRequest, data), CALL))
    check(fake, data)
