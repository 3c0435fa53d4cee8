"""numpy <-> vae.v1."""

import grpc
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from vae.v1 import tensor_pb2, vae_service_pb2

from vae_client import messages
from vae_client.errors import VaeError


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
    )

    assert request.HasField("seed")
    assert request.HasField("start_index")


def chunk(start: int, count: int) -> vae_service_pb2.SampleStreamResponse:
    response = vae_service_pb2.SampleResponse(
        observations=messages.to_tensor(np.zeros((count, 2)), "observations"), seed=5
    )
    return vae_service_pb2.SampleStreamResponse(response=response, start_index=start)


def stream(count: int) -> messages.SampleStream:
    request = vae_service_pb2.SampleRequest(model="models/digits", sample_count=count)
    return messages.SampleStream(request, chunk_items=4)


def test_a_broken_stream_goes_on_after_what_has_arrived_with_the_same_seed() -> None:
    state = stream(10)
    state.take(chunk(0, 4))
    state.take(chunk(4, 4))

    assert state.goes_on(VaeError(grpc.StatusCode.UNAVAILABLE, "gone"))
    request = state.request().request
    assert (request.seed, request.start_index, request.sample_count) == (5, 8, 2)
    state.take(chunk(8, 2))
    assert state.done


def test_a_stream_that_breaks_three_times_in_vain_is_given_up() -> None:
    state, gone = stream(10), VaeError(grpc.StatusCode.UNAVAILABLE, "gone")

    assert [state.goes_on(gone) for _ in range(3)] == [True, True, False]


def test_progress_allows_three_more_breaks() -> None:
    state, gone = stream(10), VaeError(grpc.StatusCode.UNAVAILABLE, "gone")
    state.goes_on(gone)
    state.goes_on(gone)
    state.take(chunk(0, 4))

    assert state.goes_on(gone)


def test_a_stream_at_fault_is_not_asked_for_again() -> None:
    assert not stream(10).goes_on(VaeError(grpc.StatusCode.INVALID_ARGUMENT, "bad"))
