"""Spliced messages are the messages that protobuf would make."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from inference.inference_service_pb2 import ModelInferResponse
from vae.v1.vae_service_pb2 import DecodeResponse, DecodeStreamResponse

from service import tensors
from service.transport.spliced import Spliced
from service.wire import bytes_field, length_delimited, tensor_field, within

SHAPES = array_shapes(min_dims=1, max_dims=4, max_side=7)
DTYPES = st.sampled_from([np.dtype(np.float32), np.dtype(np.uint8)])


@given(st.data(), DTYPES, SHAPES)
def test_a_tensor_field_is_what_protobuf_makes_of_it(
    data: st.DataObject, dtype: np.dtype, shape: tuple[int, ...]
) -> None:
    array = data.draw(arrays(dtype, shape))
    head = DecodeResponse(model="models/digits/versions/1").SerializeToString()

    spliced = Spliced((head, *tensor_field(2, array)))

    expected = DecodeResponse(
        model="models/digits/versions/1", observations=tensors.from_array(array)
    )
    assert DecodeResponse.FromString(spliced.SerializeToString()) == expected
    nested = within(1, b"", spliced).SerializeToString()
    assert DecodeStreamResponse.FromString(nested) == DecodeStreamResponse(response=expected)


@pytest.mark.parametrize("items", [1, 31, 32, 4095, 4096, 600_000])
def test_lengths_of_every_size_are_right(items: int) -> None:
    array = np.arange(items, dtype=np.float32)

    spliced = Spliced((*tensor_field(2, array), *tensor_field(2, array[:1])))

    merged = DecodeResponse.FromString(spliced.SerializeToString())  # the last data field counts
    assert merged.observations.data == array[:1].tobytes()
    assert list(merged.observations.shape) == [items, 1]


def test_bytes_fields_repeat() -> None:
    first, second = np.arange(3, dtype=np.float32), np.arange(300, dtype=np.uint8)

    spliced = Spliced((*bytes_field(6, first), *bytes_field(6, second)))

    message = ModelInferResponse.FromString(spliced.SerializeToString())
    assert list(message.raw_output_contents) == [first.tobytes(), second.tobytes()]


def test_rows_of_a_batch_are_spliced_without_their_neighbours() -> None:
    batch = np.arange(12, dtype=np.float32).reshape(4, 3)

    message = DecodeResponse.FromString(Spliced(tensor_field(2, batch[1:3])).SerializeToString())

    assert message.observations.data == batch[1:3].tobytes()


@pytest.mark.parametrize(
    ("field", "size", "expected"),
    [
        (1, 0, b"\x0a\x00"),
        (2, 127, b"\x12\x7f"),
        (2, 128, b"\x12\x80\x01"),
        (16, 1, b"\x82\x01\x01"),
    ],
)
def test_tags_and_lengths_are_varints(field: int, size: int, expected: bytes) -> None:
    assert length_delimited(field, size) == expected
