"""Bad requests over a real socket: a clear error for their sender, and no harm to anybody else."""

from typing import Any

import grpc
import numpy as np
import pytest
from vae.v1 import model_service_pb2, model_service_pb2_grpc, vae_service_pb2_grpc
from vae.v1.tensor_pb2 import (
    DATA_TYPE_FLOAT32,
    DATA_TYPE_INT64,
    DATA_TYPE_UINT8,
    Tensor,
)
from vae.v1.vae_service_pb2 import DecodeRequest, EncodeRequest, SampleRequest

from vae_client import VaeClient
from vae_client.errors import VaeError, error_of

MODEL = "models/digits"


def tensor(array: np.ndarray, **changes: Any) -> Tensor:
    fields = {"data_type": DATA_TYPE_FLOAT32, "shape": array.shape, "data": array.tobytes()}
    return Tensor(**fields | changes)


def latents(**changes: Any) -> Tensor:
    return tensor(np.zeros((2, 8), "<f4"), **changes)


def levels(**changes: Any) -> Tensor:
    return tensor(np.zeros((1, 1, 8, 8), np.uint8), data_type=DATA_TYPE_UINT8, **changes)


def filled(value: float) -> Tensor:
    return tensor(np.full((1, 1, 8, 8), value, "<f4"))


def call(channel: grpc.Channel, request: Any) -> Any:
    stub = vae_service_pb2_grpc.VaeServiceStub(channel)
    methods = {SampleRequest: stub.Sample, EncodeRequest: stub.Encode, DecodeRequest: stub.Decode}
    return methods[type(request)](request, timeout=10)


def refused(channel: grpc.Channel, request: Any) -> VaeError:
    with pytest.raises(grpc.RpcError) as caught:
        call(channel, request)
    return error_of(caught.value)


SAMPLE = {"model": MODEL, "sample_count": 2}


@pytest.mark.parametrize(
    ("request_", "field", "expected"),
    [
        (SampleRequest(), "model", "models/NAME"),
        (SampleRequest(model="digits", sample_count=1), "model", "models/NAME"),
        (SampleRequest(model=MODEL), "sample_count", "expected 1 to 4096, not 0"),
        (SampleRequest(model=MODEL, sample_count=-5), "sample_count", "not -5"),
        (SampleRequest(model=MODEL, sample_count=2**62), "sample_count", "expected 1 to 4096"),
        (SampleRequest(**SAMPLE, temperature=-1.0), "temperature", "from 0 to 1000"),
        (SampleRequest(**SAMPLE, temperature=float("nan")), "temperature", "from 0 to 1000"),
        (SampleRequest(**SAMPLE, temperature=float("inf")), "temperature", "from 0 to 1000"),
        (SampleRequest(**SAMPLE, start_index=2**64 - 1), "start_index", "at most"),
        (SampleRequest(**SAMPLE, labels=[1]), "labels", "not conditional"),
        (
            SampleRequest(**SAMPLE, observation_encoding=99),  # type: ignore[arg-type]
            "observation_encoding",
            "expected one of OBSERVATION_ENCODING_FLOAT32, ",
        ),
        (DecodeRequest(), "model", "models/NAME"),
        (DecodeRequest(model=MODEL), "latents.data_type", "DATA_TYPE_FLOAT32"),
        (
            DecodeRequest(model=MODEL, latents=latents(data_type=DATA_TYPE_UINT8)),
            "latents.data_type",
            "DATA_TYPE_FLOAT32",
        ),
        (
            DecodeRequest(model=MODEL, latents=latents(data_type=DATA_TYPE_INT64)),
            "latents.data_type",
            "DATA_TYPE_FLOAT32",
        ),
        (DecodeRequest(model=MODEL, latents=latents(shape=[])), "latents.shape", "[items, 8]"),
        (DecodeRequest(model=MODEL, latents=latents(shape=[16])), "latents.shape", "[items, 8]"),
        (DecodeRequest(model=MODEL, latents=latents(shape=[4, 4])), "latents.shape", "[items, 8]"),
        (DecodeRequest(model=MODEL, latents=latents(shape=[0, 8])), "latents.shape", "not 0"),
        (DecodeRequest(model=MODEL, latents=latents(shape=[-1, 8])), "latents.shape", "not -1"),
        (DecodeRequest(model=MODEL, latents=latents(shape=[2**62, 8])), "latents.shape", "items"),
        (DecodeRequest(model=MODEL, latents=latents(data=b"")), "latents.data", "expected 64"),
        (DecodeRequest(model=MODEL, latents=latents(data=bytes(63))), "latents.data", "not 63"),
        (DecodeRequest(model=MODEL, latents=latents(data=bytes(65))), "latents.data", "not 65"),
        (
            DecodeRequest(model=MODEL, latents=tensor(np.full((1, 8), np.nan, "<f4"))),
            "latents.data",
            "NaN",
        ),
        (EncodeRequest(), "model", "models/NAME"),
        (EncodeRequest(model=MODEL), "observations.data_type", "DATA_TYPE_FLOAT32"),
        (EncodeRequest(model=MODEL, observations=latents()), "observations.shape", "1, 8, 8]"),
        (
            EncodeRequest(model=MODEL, observations=levels(data=bytes(63))),
            "observations.data",
            "expected 64 bytes",
        ),
        (
            EncodeRequest(model=MODEL, observations=levels(shape=[1, 64])),
            "observations.shape",
            "1, 8, 8]",
        ),
        (EncodeRequest(model=MODEL, observations=filled(np.nan)), "observations.data", "NaN"),
        (EncodeRequest(model=MODEL, observations=filled(np.inf)), "observations.data", "infinity"),
        (EncodeRequest(model=MODEL, observations=filled(255)), "observations.data", "0 to 1"),
        (EncodeRequest(model=MODEL, observations=filled(-0.1)), "observations.data", "0 to 1"),
        (
            EncodeRequest(model=MODEL, observations=filled(0), seed=1),
            "seed",
            "only used with include_latents",
        ),
    ],
)
def test_a_bad_request_is_refused_by_the_name_of_its_field(
    channel: grpc.Channel, request_: Any, field: str, expected: str
) -> None:
    error = refused(channel, request_)

    assert error.code is grpc.StatusCode.INVALID_ARGUMENT
    assert error.field == field
    assert expected in str(error)
    assert error.reason in ("INVALID_ARGUMENT", "INVALID_TENSOR")


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("models/nope", "model nope"),
        ("models/digits/versions/2", "version 2 of model digits"),
        ("models/digits/versions/x", "version of that number of model digits"),
        ("models/../digits", "version of that number of model of that name"),
    ],
)
def test_an_unknown_model_is_not_found(channel: grpc.Channel, name: str, told: str) -> None:
    error = refused(channel, SampleRequest(model=name, sample_count=1))

    assert error.code is grpc.StatusCode.NOT_FOUND
    assert error.reason == "MODEL_NOT_FOUND"
    assert f"no {told} is served" in str(error)


def test_a_latent_of_another_space_is_refused(channel: grpc.Channel) -> None:
    error = refused(channel, DecodeRequest(model=MODEL, latents=latents(), latent_space="other"))

    assert error.code is grpc.StatusCode.FAILED_PRECONDITION
    assert error.reason == "LATENT_SPACE_MISMATCH"


def test_a_message_beyond_the_limit_is_refused(channel: grpc.Channel) -> None:
    big = latents(data=bytes(65 * 2**20))

    error = refused(channel, DecodeRequest(model=MODEL, latents=big))

    assert error.code is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_bytes_that_are_no_message_are_refused(channel: grpc.Channel) -> None:
    method = channel.unary_unary("/vae.v1.VaeService/Decode")

    with pytest.raises(grpc.RpcError) as caught:
        method(b"\xff\xff\xff", timeout=10)

    error = error_of(caught.value)
    assert error.code is grpc.StatusCode.INVALID_ARGUMENT
    assert error.field == "request"
    assert "vae.v1.DecodeRequest" in str(error)


def test_an_unknown_method_is_unimplemented(channel: grpc.Channel) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        channel.unary_unary("/vae.v1.VaeService/Train")(b"", timeout=10)

    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (model_service_pb2.ListModelsRequest(page_size=-1), "page_size"),
        (model_service_pb2.ListModelsRequest(page_token="models/x"), "page_token"),
    ],
)
def test_a_bad_page_is_refused(
    channel: grpc.Channel, request_: model_service_pb2.ListModelsRequest, field: str
) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        model_service_pb2_grpc.ModelServiceStub(channel).ListModels(request_, timeout=10)

    assert error_of(caught.value).field == field


def test_bad_requests_do_not_harm_their_neighbours(channel: grpc.Channel) -> None:
    stub = vae_service_pb2_grpc.VaeServiceStub(channel)
    good = DecodeRequest(model=MODEL, latents=latents())
    bad = DecodeRequest(model=MODEL, latents=latents(data=bytes(63)))
    expected = stub.Decode(good, timeout=10).observations

    calls = [stub.Decode.future(bad if i % 2 else good, timeout=10) for i in range(100)]

    for index, answer in enumerate(calls):
        if index % 2:
            assert answer.code() is grpc.StatusCode.INVALID_ARGUMENT
        else:
            received = np.frombuffer(answer.result().observations.data, "<f4")
            np.testing.assert_allclose(received, np.frombuffer(expected.data, "<f4"), atol=1e-6)


def test_the_client_refuses_pixels_that_nobody_scaled(client: VaeClient) -> None:
    with pytest.raises(TypeError, match="floating-point numbers in the model's value range"):
        client.encode("digits", np.zeros((1, 1, 8, 8), np.int64))
