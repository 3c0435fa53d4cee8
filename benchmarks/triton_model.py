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
        self._output: str = config["output"][0]["name"]

    def execute(self, requests: list[Any]) -> list[Any]:
        """One run for all requests that the dynamic batcher brought; a response for each."""
        arrays = [request.inputs()[0].as_numpy() for request in requests]
        batch = arrays[0] if len(arrays) == 1 else np.concatenate(arrays)
        (outputs,) = self._session.run([self._output], {self._input: batch})
        responses = []
        row = 0
        for array in arrays:
            rows = outputs[row : row + len(array)]
            row += len(array)
            tensor = backend.Tensor(self._output, rows)
            responses.append(backend.InferenceResponse(output_tensors=[tensor]))
        return responses
