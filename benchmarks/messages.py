"""Requests of both protocols, and proof that a server's answer holds what onnxruntime computes."""

import grpc
import numpy as np
import onnxruntime
from inference import inference_service_pb2 as inference
from numpy.typing import NDArray
from vae.v1 import tensor_pb2, vae_service_pb2

from benchmarks.errors import BenchmarkError
from benchmarks.http2 import Method
from benchmarks.models import BenchModel
from benchmarks.servers import call

DECODE = "/vae.v1.VaeService/Decode"
INFER = "/inference.GRPCInferenceService/ModelInfer"
READY = "/inference.GRPCInferenceService/ServerReady"
_OVERHEAD = 512  # most bytes of an answer beside its tensor: names and shapes
Array = NDArray[np.float32]


def latents_of(model: BenchModel, items: int) -> Array:
    """Standard normal latents [items, L], always the same."""
    return np.random.default_rng(items).standard_normal(
        (items, model.latent_size), dtype=np.float32
    )


def decode(model: BenchModel, items: int) -> Method:
    """vae.v1.Decode of `items` latents."""
    latents = latents_of(model, items)
    tensor = tensor_pb2.Tensor(
        data_type=tensor_pb2.DATA_TYPE_FLOAT32, shape=latents.shape, data=latents.tobytes()
    )
    request = vae_service_pb2.DecodeRequest(model=f"models/{model.name}", latents=tensor)
    return Method(DECODE, request.SerializeToString(), _answer_bytes(model, items))


def decode_uint8(model: BenchModel, items: int) -> Method:
    """vae.v1.Decode of `items` latents to observations in uint8."""
    method = decode(model, items)
    request = vae_service_pb2.DecodeRequest.FromString(method.request)
    request.observation_encoding = vae_service_pb2.OBSERVATION_ENCODING_UINT8
    size = items * model.observation_size
    return Method(DECODE, request.SerializeToString(), (size, size + _OVERHEAD))


def infer(model: BenchModel, items: int) -> Method:
    """The Open Inference Protocol's ModelInfer of `items` latents, as raw contents; it asks for
    `observations` alone."""
    latents = latents_of(model, items)
    tensor = inference.ModelInferRequest.InferInputTensor(
        name="latents", datatype="FP32", shape=latents.shape
    )
    output = inference.ModelInferRequest.InferRequestedOutputTensor(name="observations")
    request = inference.ModelInferRequest(
        model_name=model.decoder,
        inputs=[tensor],
        outputs=[output],
        raw_input_contents=[latents.tobytes()],
    )
    return Method(INFER, request.SerializeToString(), _answer_bytes(model, items))


def speaks_inference(target: str) -> bool:
    """Whether the server has the Open Inference Protocol. Raises BenchmarkError if it is gone."""
    try:
        call(target, READY, b"")
    except grpc.RpcError as error:
        if error.code() is grpc.StatusCode.UNIMPLEMENTED:
            return False
        raise BenchmarkError(f"{target} does not answer: {error.details()}") from error
    return True


def check_answer(target: str, method: Method, expected: Array) -> None:
    """Call once, and raise BenchmarkError unless the answer holds `expected` [N, ...]."""
    try:
        answer = call(target, method.path, method.request)
    except grpc.RpcError as error:
        raise BenchmarkError(f"{method.path} failed: {error.details()}") from error
    least, most = method.answer_bytes
    if not least <= len(answer) <= most:
        raise BenchmarkError(f"{method.path} answered {len(answer)} bytes, not {least} to {most}")
    actual = np.frombuffer(_observations(method.path, answer), "<f4").reshape(expected.shape)
    if not np.allclose(actual, expected, rtol=0, atol=1e-4):
        worst = float(np.abs(actual - expected).max())
        raise BenchmarkError(f"{method.path} answered observations that are off by {worst:.2g}")


def _observations(path: str, answer: bytes) -> bytes:
    if path == DECODE:
        return vae_service_pb2.DecodeResponse.FromString(answer).observations.data
    (observations,) = inference.ModelInferResponse.FromString(answer).raw_output_contents
    return observations


def expected_observations(graph: bytes, latents: Array) -> Array:
    """What onnxruntime computes by itself."""
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    (observations,) = session.run(["observations"], {"latents": latents})
    return observations  # type: ignore[no-any-return]  # onnxruntime carries no types


def _answer_bytes(model: BenchModel, items: int) -> tuple[int, int]:
    size = 4 * items * model.observation_size
    return size, size + _OVERHEAD
