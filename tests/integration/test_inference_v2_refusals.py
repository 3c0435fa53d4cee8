"""Bad requests of the Open Inference Protocol: a clear error with what was expected."""

from typing import Any

import grpc
import numpy as np
import pytest
from inference import inference_service_pb2 as pb
from inference.inference_service_pb2_grpc import GRPCInferenceServiceStub

from tests.integration.inference_requests import (
    DECODER,
    ENCODER,
    Parameter,
    latents,
    observations,
    request,
)
from vae_client.errors import VaeError, error_of

Tensor = pb.ModelInferRequest.InferInputTensor


def refused(stub: GRPCInferenceServiceStub, message: pb.ModelInferRequest) -> VaeError:
    with pytest.raises(grpc.RpcError) as caught:
        stub.ModelInfer(message, timeout=10)
    return error_of(caught.value)


RAW = request(DECODER, arrays={"latents": latents()})


def changed(**fields: Any) -> pb.ModelInferRequest:
    """RAW, with fields of its tensor, or of itself, replaced."""
    message = pb.ModelInferRequest()
    message.CopyFrom(RAW)
    for name, value in fields.items():
        target = message.inputs[0] if name in Tensor.DESCRIPTOR.fields_by_name else message
        target.ClearField(name)
        target.MergeFrom(type(target)(**{name: value}))
    return message


def decoding(array: np.ndarray) -> pb.ModelInferRequest:
    return request(DECODER, arrays={"latents": array})


def encoding(**fields: Any) -> pb.ModelInferRequest:
    return request(ENCODER, arrays={"observations": observations()}, **fields)


@pytest.mark.parametrize(
    ("message", "field", "expected"),
    [
        (changed(name="noise"), "inputs", "expected latents, each once"),
        (pb.ModelInferRequest(model_name=DECODER), "inputs", "latents is missing"),
        (
            request(ENCODER, arrays={"noise": latents()}),
            "inputs",
            "expected observations, noise (optional); observations is missing",
        ),
        (changed(datatype="FP64"), "latents.datatype", "expected FP32"),
        (changed(shape=[16]), "latents.shape", "expected [items, 8], not [16]"),
        (changed(shape=[]), "latents.shape", "expected [items, 8], not []"),
        (changed(shape=[0, 8]), "latents.shape", "expected 1 to 4096 items, not 0"),
        (changed(shape=[2**62, 8]), "latents.shape", "expected 1 to 4096 items"),
        (changed(raw_input_contents=[bytes(63)]), "latents.data", "expected 64 bytes"),
        (changed(raw_input_contents=[bytes(64)] * 2), "raw_input_contents", "expected 1, as"),
        (changed(raw_input_contents=[]), "latents.contents", "expected contents, or raw"),
        (
            changed(contents=pb.InferTensorContents(fp32_contents=[0] * 16)),
            "latents.contents",
            "expected none with raw_input_contents",
        ),
        (decoding(np.full((1, 8), np.nan, "<f4")), "latents.data", "NaN or infinity"),
        (decoding(np.full((1, 8), np.inf, "<f4")), "latents.data", "NaN or infinity"),
        (decoding(latents(4097)), "latents.shape", "expected 1 to 4096 items, not 4097"),
        (
            request(ENCODER, arrays={"observations": observations() + 1}),
            "observations.data",
            "expected values from 0 to 1",
        ),
        (
            request(ENCODER, arrays={"observations": observations(2), "noise": latents(3)}),
            "inputs",
            "expected the same number of items in all",
        ),
        (changed(outputs=[{"name": "mean"}]), "outputs", "expected observations, each once"),
        (changed(outputs=[{"name": "observations"}] * 2), "outputs", "each once"),
        (
            encoding(
                outputs=[{"name": "mean", "parameters": {"classification": {"int64_param": 3}}}]
            ),
            "outputs.mean",
            "classification is not served",
        ),
        (
            request(
                DECODER,
                arrays={"latents": latents()},
                parameters={"seed": Parameter(int64_param=1)},
            ),
            "parameters.seed",
            "only used for noise that is left out",
        ),
        (
            encoding(parameters={"seed": Parameter(int64_param=-1)}),
            "parameters.seed",
            "0 to 18446744073709551615",
        ),
        (
            encoding(parameters={"seed": Parameter(string_param="7")}),
            "parameters.seed",
            "expected an int64_param or uint64_param",
        ),
        (
            encoding(parameters={"timeout": Parameter(int64_param=0)}),
            "parameters.timeout",
            "1 to 9223372036854775807",
        ),
        (changed(model_version="one"), "model_version", "expected a number"),
    ],
)
def test_a_bad_request_is_refused_with_what_was_expected(
    stub: GRPCInferenceServiceStub, message: pb.ModelInferRequest, field: str, expected: str
) -> None:
    error = refused(stub, message)

    assert error.code is grpc.StatusCode.INVALID_ARGUMENT
    assert error.field == field
    assert expected in str(error)
    assert error.reason in ("INVALID_ARGUMENT", "INVALID_TENSOR")


@pytest.mark.parametrize(
    ("name", "version"),
    [("nope.decoder", ""), ("digits", ""), ("digits.prior", ""), ("", ""), (DECODER, "2")],
)
def test_an_unknown_model_or_version_is_not_found(
    stub: GRPCInferenceServiceStub, name: str, version: str
) -> None:
    asked = {"name": name, "version": version}
    methods = [
        lambda: stub.ModelInfer(changed(model_name=name, model_version=version)),
        lambda: stub.ModelReady(pb.ModelReadyRequest(**asked)),
        lambda: stub.ModelMetadata(pb.ModelMetadataRequest(**asked)),
        lambda: stub.ModelConfig(pb.ModelConfigRequest(**asked)),
    ]
    if name:  # no name stands for all models there
        methods.append(lambda: stub.ModelStatistics(pb.ModelStatisticsRequest(**asked)))
    for method in methods:
        with pytest.raises(grpc.RpcError) as caught:
            method()
        error = error_of(caught.value)
        assert (error.code, error.reason) == (grpc.StatusCode.NOT_FOUND, "MODEL_NOT_FOUND")
        assert f"{f'version {version} of ' if version else ''}model {name or 'of'}" in str(error)
