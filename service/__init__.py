"""Serves model versions over gRPC on onnxruntime. Never imports torch, onnx, training or export."""
