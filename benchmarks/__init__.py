"""Measures the service beside its peers: same machine, same ONNX files, same client, one run."""
