"""Tensors of the Open Inference Protocol: every type of ours, raw and typed."""

import numpy as np
import pytest
from inference import inference_service_pb2 as pb

from service.errors import InvalidRequest
from service.inference_tensors import Input
from service.repository import Spec

Tensor = pb.ModelInferRequest.InferInputTensor
CASES = [
    (np.float32, "FP32", "fp32_contents", [1.5, -2.25]),
    (np.uint8, "UINT8", "uint_contents", [0, 255]),
    (np.int64, "INT64", "int64_contents", [-(2**63), 2**63 - 1]),
]


def reader(dtype: type[np.generic]) -> Input:
    return Input(Spec("x", np.dtype(dtype), (2,)), max_items=10)


@pytest.mark.parametrize(("dtype", "datatype", "contents", "values"), CASES)
def test_a_tensor_is_the_same_raw_and_typed(
    dtype: type[np.generic], datatype: str, contents: str, values: list[float]
) -> None:
    expected = np.array([values], dtype)
    raw = reader(dtype).read(Tensor(datatype=datatype, shape=[1, 2]), expected.tobytes())
    message = Tensor(
        datatype=datatype, shape=[1, 2], contents=pb.InferTensorContents(**{contents: values})
    )
    typed = reader(dtype).read(message, None)

    for array in (raw, typed):
        assert array.dtype == dtype
        np.testing.assert_array_equal(array, expected)


def test_a_raw_tensor_is_a_view_on_its_bytes() -> None:
    raw = np.ones((1, 2), "<f4").tobytes()
    array = reader(np.float32).read(Tensor(datatype="FP32", shape=[1, 2]), raw)
    assert np.shares_memory(array, np.frombuffer(raw, np.uint8))


@pytest.mark.parametrize(
    ("dtype", "datatype", "other"),
    [
        (dtype, datatype, other)
        for dtype, datatype, *_ in CASES
        for other in ("FP32", "UINT8", "INT64", "FP16", "BYTES", "", "fp32")
        if other != datatype
    ],
)
def test_another_datatype_is_refused(dtype: type[np.generic], datatype: str, other: str) -> None:
    with pytest.raises(InvalidRequest, match=f"x.datatype: expected {datatype}"):
        reader(dtype).read(Tensor(datatype=other, shape=[1, 2]), bytes(8))


@pytest.mark.parametrize(
    ("contents", "expected"),
    [
        (None, "expected contents, or raw_input_contents"),
        (pb.InferTensorContents(), "expected 2 elements for shape [1, 2], not 0"),
        (pb.InferTensorContents(uint_contents=[1, 2, 3]), "expected 2 elements"),
        (pb.InferTensorContents(uint_contents=[1, 256]), "expected values from 0 to 255"),
        (pb.InferTensorContents(int_contents=[1, 2]), "expected uint_contents only"),
        (
            pb.InferTensorContents(uint_contents=[1, 2], fp32_contents=[1]),
            "expected uint_contents only, as datatype is UINT8",
        ),
    ],
)
def test_typed_contents_must_be_those_of_the_datatype(
    contents: pb.InferTensorContents | None, expected: str
) -> None:
    message = Tensor(datatype="UINT8", shape=[1, 2], contents=contents)
    with pytest.raises(InvalidRequest) as caught:
        reader(np.uint8).read(message, None)
    assert caught.value.field == "x.contents"
    assert expected in caught.value.description


def test_raw_and_typed_at_once_is_refused() -> None:
    contents = pb.InferTensorContents(fp32_contents=[1, 2])
    with pytest.raises(InvalidRequest, match="expected none with raw_input_contents"):
        reader(np.float32).read(Tensor(datatype="FP32", shape=[1, 2], contents=contents), bytes(8))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_typed_values_must_be_finite_too(value: float) -> None:
    contents = pb.InferTensorContents(fp32_contents=[1, value])
    with pytest.raises(InvalidRequest, match=r"x.data: expected finite values"):
        reader(np.float32).read(Tensor(datatype="FP32", shape=[1, 2], contents=contents), None)


def test_shared_memory_is_refused_by_name() -> None:
    message = Tensor(datatype="FP32", shape=[1, 2])
    message.parameters["shared_memory_region"].string_param = "region"
    with pytest.raises(InvalidRequest, match="shared memory is not served"):
        reader(np.float32).read(message, None)
