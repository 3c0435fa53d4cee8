"""numpy <-> vae.v1."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from vae.v1 import tensor_pb2

from vae_client import messages


@given(arrays(np.float32, array_shapes(max_dims=4, max_side=5), elements=st.floats(width=32)))
def test_a_tensor_round_trip_keeps_every_bit(array: np.ndarray) -> None:
    returned = messages.to_array(messages.to_tensor(array, "latents"))

    assert returned.dtype == np.float32
    assert returned.shape == array.shape
    assert returned.tobytes() == array.tobytes()


def test_strided_and_double_arrays_are_converted() -> None:
    array = np.arange(12, dtype=np.float64).reshape(3, 4).T

    np.testing.assert_array_equal(messages.to_array(messages.to_tensor(array, "latents")), array)


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.bool_, np.complex64])
def test_values_that_are_no_floats_are_refused_with_their_name(dtype: type) -> None:
    with pytest.raises(TypeError, match="observations must be floating-point"):
        messages.to_tensor(np.zeros((1, 2), dtype), "observations")


def test_uint8_observations_stay_uint8() -> None:
    levels = np.arange(256, dtype=np.uint8).reshape(4, 64)

    tensor = messages.to_observations(levels)

    assert tensor.data_type == tensor_pb2.DATA_TYPE_UINT8
    np.testing.assert_array_equal(messages.to_pixels(tensor), levels)


@pytest.mark.parametrize("dtype", [np.int64, np.int32])
def test_latents_of_integers_are_codes(dtype: type) -> None:
    codes = np.arange(6, dtype=dtype).reshape(2, 3)

    tensor = messages.to_latents(codes)

    assert tensor.data_type == tensor_pb2.DATA_TYPE_INT64
    returned = messages.from_latents(tensor)
    assert returned.dtype == np.int64
    np.testing.assert_array_equal(returned, codes)


def test_latents_of_real_numbers_are_float32() -> None:
    tensor = messages.to_latents(np.array([[0.5, -1.0]]))

    np.testing.assert_array_equal(messages.from_latents(tensor), np.float32([[0.5, -1.0]]))


def test_a_tensor_of_an_unknown_type_is_refused() -> None:
    tensor = tensor_pb2.Tensor(data_type=tensor_pb2.DATA_TYPE_UINT8, shape=[1], data=b"\x00")

    with pytest.raises(ValueError, match="float32 tensors, not DATA_TYPE_UINT8"):
        messages.to_array(tensor)


@pytest.mark.parametrize(
    ("given_name", "resource"),
    [
        ("digits", "models/digits"),
        ("models/digits", "models/digits"),
        ("models/digits/versions/2", "models/digits/versions/2"),
    ],
)
def test_a_bare_name_stands_for_the_default_version(given_name: str, resource: str) -> None:
    assert messages.resource(given_name) == resource


def test_what_is_not_given_is_not_sent() -> None:
    request = messages.sample_request(
        "digits",
        2,
        seed=None,
        start_index=None,
        temperature=None,
        labels=(),
        include_latents=False,
        uint8=False,
        priority=0,
    )

    assert {field.name for field, _ in request.ListFields()} == {"model", "sample_count"}


def test_seed_zero_is_sent() -> None:
    request = messages.encode_request(
        "digits",
        np.zeros((1, 2)),
        include_latents=True,
        seed=0,
        start_index=0,
        labels=(),
        priority=0,
    )

    assert request.HasField("seed")
    assert request.HasField("start_index")
