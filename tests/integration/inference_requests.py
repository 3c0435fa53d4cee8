"""Requests of the Open Inference Protocol for the digits, and the arrays of their answers."""

from typing import Any

import numpy as np
from inference import inference_service_pb2 as pb

DECODER, ENCODER = "digits.decoder", "digits.encoder"
Parameter = pb.InferParameter


def latents(items: int = 2) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((items, 8)).astype("<f4")


def observations(items: int = 2) -> np.ndarray:
    return np.random.default_rng(0).random((items, 1, 8, 8)).astype("<f4")


def request(
    name: str, *, typed: bool = False, arrays: dict[str, np.ndarray], **fields: Any
) -> pb.ModelInferRequest:
    message = pb.ModelInferRequest(model_name=name, **fields)
    for key, array in arrays.items():
        tensor = message.inputs.add(name=key, datatype="FP32", shape=array.shape)
        if typed:
            tensor.contents.fp32_contents.extend(array.ravel())
        else:
            message.raw_input_contents.append(array.tobytes())
    return message


def arrays_of(answer: pb.ModelInferResponse) -> dict[str, np.ndarray]:
    pairs = zip(answer.outputs, answer.raw_output_contents, strict=True)
    return {output.name: np.frombuffer(data, "<f4").reshape(output.shape) for output, data in pairs}
