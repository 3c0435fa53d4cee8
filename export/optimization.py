"""How many nodes a file has, and how many onnxruntime makes of them."""

import tempfile
from pathlib import Path

import onnx
import onnxruntime


def node_counts(content: bytes) -> tuple[int, int]:
    """Nodes in an ONNX file, and nodes that onnxruntime runs on the CPU after its optimization."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # it warns that the optimized file is for this machine only
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "optimized.onnx"
        options.optimized_model_filepath = str(path)
        onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        optimized = onnx.load_model(path)
    return len(onnx.load_model_from_string(content).graph.node), len(optimized.graph.node)
