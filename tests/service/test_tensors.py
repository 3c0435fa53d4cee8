"""Wire tensors and arrays: refusals that name the field, and no copy on the way in."""

import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given
from vae.v1 import tensor_pb2

from service.errors import InvalidRequest
from service.tensors import from_array, to_array, to_codes

FLOAT32 = tensor_pb2.DATA_TYPE_FLOAT32


def tensor(
    shape: list[int], data: bytes | None = None, data_type: int = FLOAT32
) -> tensor_pb2.Tensor:
    if data is None:
        data = np.ones(shape, "<f4").tobytes()
    return tensor_pb2.Tensor(data_type=data_type, shape=shape, data=data)  # type: ignore[arg-type]


def refusal(
    wire: tensor_pb2.Tensor, item_shape: tuple[int, ...] = (2, 3), max_items: int = 10
) -> tuple[str, str]:
    with pytest.raises(InvalidRequest) as caught:
        to_array(wire, "observations", item_shape, max_items)
    return caught.value.field, caught.value.description


@pytest.mark.parametrize(
    "data_type",
    [
        tensor_pb2.DATA_TYPE_UNSPECIFIED,
        tensor_pb2.DATA_TYPE_UINT8,
        tensor_pb2.DATA_TYPE_INT64,
        77,
    ],
)
def test_another_data_type_than_float32_is_refused(data_type: int) -> None:
    field, description = refusal(tensor([4, 2, 3], data_type=data_type))
    assert (field, description) == ("observations.data_type", "expected DATA_TYPE_FLOAT32")


@pytest.mark.parametrize(
    "shape",
    [[], [4], [4, 6], [4, 2, 3, 1], [2, 3], [4, 3, 2], [4, 2, 4], [4, -2, -3], [4, 0, 3]],
)
def test_another_item_shape_is_refused(shape: list[int]) -> None:
    field, description = refusal(tensor(shape, b""))
    assert field == "observations.shape"
    assert description == f"expected [items, 2, 3], not {shape}"


def test_the_refusal_of_a_shape_does_not_repeat_a_long_shape() -> None:
    _, description = refusal(tensor([1] * 1000, b""))
    assert len(description) < 100


@pytest.mark.parametrize("items", [0, -1, 11, 2**31, 2**62, 2**63 - 1, -(2**63)])
def test_a_number_of_items_out_of_range_is_refused(items: int) -> None:
    field, description = refusal(tensor([items, 2, 3], b""))
    assert field == "observations.shape"
    assert description == f"expected 1 to 10 items, not {items}"


@pytest.mark.parametrize(
    ("items", "item_shape"),
    [(2**61, (2,)), (2**62, (4,)), (2**32, (2**32,)), (2**59, (2, 4))],
)
def test_a_product_of_sizes_beyond_64_bits_does_not_wrap_around_to_0_bytes(
    items: int, item_shape: tuple[int, ...]
) -> None:
    field, _ = refusal(tensor([items, *item_shape], b""), item_shape, max_items=2**63)
    assert field == "observations.data"


@pytest.mark.parametrize("size", [0, 1, 95, 97, 192])
def test_another_number_of_bytes_is_refused(size: int) -> None:
    field, description = refusal(tensor([4, 2, 3], bytes(size)))
    assert field == "observations.data"
    assert description == f"expected 96 bytes for shape [4, 2, 3], not {size}"


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [0, 11, 23])
def test_a_value_that_is_not_finite_is_refused(value: float, place: int) -> None:
    values = np.zeros(24, "<f4")
    values[place] = value
    field, description = refusal(tensor([4, 2, 3], values.tobytes()))
    assert field == "observations.data"
    assert description == "expected finite values, found NaN or infinity"


@pytest.mark.parametrize("items", [1, 10])
def test_the_fewest_and_the_most_items_are_taken(items: int) -> None:
    assert to_array(tensor([items, 2, 3]), "observations", (2, 3), 10).shape == (items, 2, 3)


def test_an_item_may_be_a_scalar() -> None:
    assert to_array(tensor([3]), "latents", (), 10).shape == (3,)


class CountingWire:
    """A Tensor that counts how often its bytes are taken: protobuf copies them every time."""

    data_type = FLOAT32
    shape = (1, 2, 3)

    def __init__(self) -> None:
        self.bytes = np.arange(6, dtype="<f4").tobytes()
        self.taken = 0

    @property
    def data(self) -> bytes:
        self.taken += 1
        return self.bytes


def test_an_array_is_a_read_only_view_on_the_bytes() -> None:
    wire = CountingWire()
    array = to_array(wire, "observations", (2, 3), 10)  # type: ignore[arg-type]
    assert np.shares_memory(array, np.frombuffer(wire.bytes, np.uint8))
    assert not array.flags.writeable


def test_the_bytes_are_taken_from_the_message_once() -> None:
    wire = CountingWire()
    to_array(wire, "observations", (2, 3), 10)  # type: ignore[arg-type]
    assert wire.taken == 1


def test_elements_are_little_endian_and_row_major() -> None:
    data = bytes.fromhex("0000803f 00000040 00004040 00008040 0000a040 0000c040")
    array = to_array(tensor([1, 2, 3], data), "observations", (2, 3), 10)
    assert array.tolist() == [[[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]]


def test_an_array_with_strides_is_written_in_row_major_order() -> None:
    array = np.arange(12, dtype=np.float32).reshape(3, 4)[:, ::2]
    np.testing.assert_array_equal(to_array(from_array(array), "latents", (2,), 10), array)


@given(
    array=hnp.arrays(
        np.float32,
        hnp.array_shapes(min_dims=1, max_dims=4, max_side=5),
        elements=st.floats(width=32, allow_nan=False, allow_infinity=False),
    )
)
def test_an_array_survives_the_wire(array: np.ndarray) -> None:
    wire = tensor_pb2.Tensor.FromString(from_array(array).SerializeToString())
    read = to_array(wire, "observations", array.shape[1:], 5)
    assert (read.dtype, read.shape) == (np.float32, array.shape)
    assert read.tobytes() == array.tobytes()


def test_codes_are_a_view_of_int64() -> None:
    codes = np.arange(12, dtype=np.int64).reshape(2, 2, 3)
    wire = from_array(codes)
    assert wire.data_type == tensor_pb2.DATA_TYPE_INT64
    read = to_codes(wire, "latents", (2, 3), 10)
    assert read.dtype == np.int64
    np.testing.assert_array_equal(read, codes)


@pytest.mark.parametrize(
    ("wire", "field", "description"),
    [
        (tensor([4, 2, 3]), "latents.data_type", "expected DATA_TYPE_INT64"),
        (
            tensor([4, 3, 2], b"", tensor_pb2.DATA_TYPE_INT64),
            "latents.shape",
            "expected [items, 2, 3], not [4, 3, 2]",
        ),
        (
            tensor([1, 2, 3], b"1234", tensor_pb2.DATA_TYPE_INT64),
            "latents.data",
            "expected 48 bytes for shape [1, 2, 3], not 4",
        ),
    ],
)
def test_what_is_no_tensor_of_codes_is_refused(
    wire: tensor_pb2.Tensor, field: str, description: str
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        to_codes(wire, "latents", (2, 3), 10)
    assert (caught.value.field, caught.value.description) == (field, description)
