"""Calls a service with Triton's own client and prints what it got as JSON; needs tritonclient.

test_tritonclient.py runs it in an environment of its own: protobuf registers one copy of a message
per process, and tritonclient brings its own copy of ours.
"""

import json
import queue
import sys
from typing import Any

import numpy as np
from tritonclient.grpc import InferenceServerClient, InferInput, InferRequestedOutput
from tritonclient.utils import InferenceServerException

DECODER, ENCODER = "digits.decoder", "digits.encoder"


def tensor(name: str, array: np.ndarray) -> Any:
    made = InferInput(name, array.shape, "FP32")
    made.set_data_from_numpy(array)
    return made


def call(client: Any) -> dict[str, Any]:
    latents = tensor("latents", np.zeros((3, 8), np.float32))
    observations = tensor("observations", np.full((2, 1, 8, 8), 0.5, np.float32))
    decoded = client.infer(DECODER, [latents], request_id="a")
    answers: queue.Queue[Any] = queue.Queue()
    client.async_infer(
        DECODER, [latents], lambda result, error: answers.put((result, error)), request_id="b"
    )
    awaited, error = answers.get(timeout=30)
    drawn = client.infer(
        ENCODER,
        [observations],
        outputs=[InferRequestedOutput("latents")],
        parameters={"seed": 7},
        priority=1,
        timeout=10_000_000,
        client_timeout=30,
    )
    try:
        client.infer("digits.nope", [latents])
    except InferenceServerException as refusal:
        refused = [refusal.status(), refusal.message()]
    try:
        client.infer(DECODER, [latents], priority=4)
    except InferenceServerException as refusal:
        refused_level = refusal.status()
    [statistics] = client.get_inference_statistics(DECODER, as_json=True)["model_stats"]
    return {
        "live": client.is_server_live(),
        "ready": client.is_server_ready(),
        "model_ready": client.is_model_ready(DECODER, "1"),
        "server": client.get_server_metadata(as_json=True),
        "metadata": client.get_model_metadata(ENCODER, as_json=True),
        "config": client.get_model_config(ENCODER, as_json=True)["config"],
        "decoded": decoded.as_numpy("observations").tolist(),
        "id": decoded.get_response(as_json=True)["id"],
        "async_error": error,
        "async_decoded": awaited.as_numpy("observations").tolist(),
        "latents": drawn.as_numpy("latents").tolist(),
        "seed": drawn.get_response(as_json=True)["parameters"]["seed"],
        "refused": refused,
        "refused_level": refused_level,
        "requests": int(statistics["inference_stats"]["success"]["count"]),
    }


if __name__ == "__main__":
    with InferenceServerClient(sys.argv[1]) as connected:
        json.dump(call(connected), sys.stdout)
