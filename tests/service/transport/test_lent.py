"""What is lent of a message is what protobuf would have copied."""

from typing import Any
from unittest import mock

import numpy as np
import pytest
from google.protobuf.message import DecodeError, Message
from hypothesis import given, settings
from hypothesis import strategies as st
from inference.inference_service_pb2 import ModelInferRequest, ModelRepositoryParameter
from vae.v1.tensor_pb2 import Tensor
from vae.v1.vae_service_pb2 import (
    EncodeRequest,
    EncodeStreamRequest,
    InterpolateRequest,
    Points,
)

from service.tensors import view
from service.transport import lent
from service.transport.lent import LARGE, Lent, contents_at, read

CONTENTS = bytes(range(256)) * 300  # more than LARGE
TENSOR = Tensor(data_type=1, shape=(3, 25_600), data=CONTENTS)
BYTES = st.binary(max_size=20)
PARTS = st.one_of(
    st.builds(
        Tensor, data_type=st.integers(0, 4), shape=st.lists(st.integers(-9, 2**40), max_size=3)
    ),
    st.builds(Tensor, data=BYTES),
)
ENCODE = st.builds(
    EncodeRequest,
    model=st.text(max_size=12),
    observations=st.none() | PARTS,
    seed=st.none() | st.integers(0, 2**64 - 1),
    labels=st.lists(st.integers(0, 300), max_size=9),
    images=st.lists(BYTES, max_size=3),
    priority=st.integers(-3, 3),
)
MESSAGES = st.one_of(
    ENCODE,
    st.builds(EncodeStreamRequest, request=ENCODE),
    st.builds(
        InterpolateRequest,
        start=st.builds(Points, latents=st.none() | PARTS, observations=st.none() | PARTS),
    ),
    st.builds(
        ModelInferRequest, id=st.text(max_size=12), raw_input_contents=st.lists(BYTES, max_size=3)
    ),
)


def same(found: Any, expected: Message) -> bool:
    """Whether every field says the same, also which are present."""
    for field in expected.DESCRIPTOR.fields:
        value, wanted = getattr(found, field.name), getattr(expected, field.name)
        if field.has_presence and found.HasField(field.name) != expected.HasField(field.name):
            return False
        if field.message_type is not None and not field.is_repeated:
            if not same(value, wanted):
                return False
        elif field.type == field.TYPE_BYTES and field.is_repeated:
            if list(map(bytes, value)) != list(wanted):
                return False
        elif value != wanted:
            return False
    return True


@settings(max_examples=400)
@given(messages=st.lists(MESSAGES, min_size=1, max_size=3), cut=st.integers(0, 300), junk=BYTES)
def test_a_message_reads_as_protobuf_reads_it(
    messages: list[Message], cut: int, junk: bytes
) -> None:
    kind = type(messages[0])
    joined = b"".join(message.SerializeToString() for message in messages)
    for data in (joined, joined[:cut], joined[:cut] + junk + joined[cut:]):
        with mock.patch.object(lent, "LARGE", 4):
            try:
                expected = kind.FromString(data)
            except DecodeError:
                with pytest.raises(DecodeError):
                    read(kind, data)
            else:
                assert same(read(kind, data), expected)


def test_large_contents_of_a_tensor_are_a_view() -> None:
    request = EncodeRequest(model="models/m", observations=TENSOR, labels=[1, 2], priority=3)
    data = EncodeStreamRequest(request=request).SerializeToString()
    found = read(EncodeStreamRequest, data)
    contents = found.request.observations.data
    assert isinstance(contents, memoryview)
    assert contents.obj is data
    assert contents == CONTENTS
    assert found.request.observations.shape == [3, 25_600]
    assert (found.request.model, found.request.labels) == ("models/m", [1, 2])
    assert found.request.HasField("observations")
    assert not found.request.HasField("seed")
    assert found.SerializeToString() == data
    assert found.request.SerializeToString() == request.SerializeToString()


def test_large_contents_of_several_inputs_are_views_in_their_order() -> None:
    request = ModelInferRequest(model_name="m", raw_input_contents=[b"small", CONTENTS, b""])
    data = request.SerializeToString()
    found = read(ModelInferRequest, data)
    assert found.raw_input_contents == [b"small", CONTENTS, b""]
    assert found.raw_input_contents[1].obj is data
    assert found.model_name == "m"


def test_small_contents_are_protobufs() -> None:
    tensor = Tensor(data=bytes(LARGE - 100))
    request = EncodeRequest(model="m", observations=tensor)
    assert read(EncodeRequest, request.SerializeToString()) == request


def test_what_is_no_large_contents_is_protobufs() -> None:
    request = EncodeRequest(labels=[2**40] * LARGE)
    assert read(EncodeRequest, request.SerializeToString()) == request


@pytest.mark.parametrize(
    "parts",
    [
        [EncodeRequest(observations=TENSOR), EncodeRequest(observations=Tensor(data=b"last"))],
        [EncodeRequest(observations=Tensor(shape=[5])), EncodeRequest(observations=TENSOR)],
    ],
)
def test_fields_that_come_twice_are_left_to_protobuf(parts: list[EncodeRequest]) -> None:
    data = b"".join(part.SerializeToString() for part in parts)
    assert read(EncodeRequest, data) == EncodeRequest.FromString(data)


def test_a_field_whose_place_another_takes_is_left_to_protobuf() -> None:
    parts = [
        ModelRepositoryParameter(bytes_param=CONTENTS),
        ModelRepositoryParameter(int64_param=3),
    ]
    data = b"".join(part.SerializeToString() for part in parts)
    assert read(ModelRepositoryParameter, data) == parts[1]


def test_a_message_of_very_many_fields_is_left_to_protobuf() -> None:
    request = ModelInferRequest(raw_input_contents=[CONTENTS, *[b""] * 2000])
    assert not isinstance(read(ModelInferRequest, request.SerializeToString()), Lent)


@pytest.mark.parametrize("name", ["m", "models/a", "a-longer-name"])
def test_the_head_of_a_message_tells_where_its_contents_begin(name: str) -> None:
    request = EncodeStreamRequest(request=EncodeRequest(model=name, observations=TENSOR))
    data = request.SerializeToString()
    begin = data.index(CONTENTS)
    kind = EncodeStreamRequest.DESCRIPTOR
    assert contents_at(kind, memoryview(data)[:begin], len(data)) == begin
    for end in range(begin):  # of which no tells all
        assert contents_at(kind, memoryview(data)[:end], len(data)) < begin
    assert contents_at(kind, memoryview(b"\xff" * 20), len(data)) == 0


def test_a_lent_tensor_at_an_odd_address_becomes_an_aligned_array() -> None:
    for offset in range(4):
        array = view(memoryview(bytes(offset) + bytes(24))[offset:], "x", (3, 2), np.dtype("<f4"))
        assert array.flags.aligned
        assert array.shape == (3, 2)
