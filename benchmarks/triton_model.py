"""Triton's `model.py`: runs the decoder on the same onnxruntime, one call for each batch.

Runs inside Triton's Python backend, not in the project's environment, so it imports nothing of the
project. `benchmarks.triton` copies it into Triton's model repository and writes the parameters.
"""

import json
import os
import sys
from typing import Any

# The backend's interpreter reads neither PYTHONPATH nor a virtual environment.
sys.path.insert(0, os.environ["TRITON_SITE_PACKAGES"])

import numpy as np
import onnxruntime
import triton_python_backend_utils as backend


class TritonPythonModel:
    """What the Python backend asks for: initialize once, execute for each batch."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the decoder with the service's own session options."""
        config = json.loads(args["model_config"])
        parameters = {key: value["string_value"] for key, value in config["parameters"].items()}
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = int(parameters["threads"])
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = onnxruntime.InferenceSession(
            parameters["graph"], options, providers=["CPUExecutionProvider"]
        )
        self._input: str = config["input"][0]["name"]
        self._outputs: list[str] = [output["name"] for output in config["output"]]

    def execute(self, requests: list[Any]) -> list[Any]:
        """One run for all requests that the dynamic batcher brought; a response for each, with
        the outputs that it asked for."""
        arrays = [request.inputs()[0].as_numpy() for request in requests]
        batch = arrays[0] if len(arrays) == 1 else np.concatenate(arrays)
        wanted = [request.requested_output_names() for request in requests]
        union = set().union(*wanted)
        names = [name for name in self._outputs if name in union]
        outputs = dict(zip(names, self._session.run(names, {self._input: batch}), strict=True))
        responses = []
        row = 0
        for array, asked in zip(arrays, wanted, strict=True):
            end = row + len(array)
            tensors = [backend.Tensor(name, outputs[name][row:end]) for name in asked]
            row = end
            responses.append(backend.InferenceResponse(output_tensors=tensors))
        return responses
