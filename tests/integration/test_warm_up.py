"""A version serves once every graph has run every batch bucket, and not before."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from scripts.launch import ServiceProcess
from tests.integration.publications import publish, replace_graph
from tests.integration.waiting import wait_until
from vae_client import VaeClient, VaeError

POLL = ("--model-control", "poll", "--repository-poll-seconds", "0.1")


def failing_at(items: int, file: str) -> Callable[[Path], None]:
    """Lets a graph of a version fail in batches of so many items alone, once it runs."""

    def change(folder: Path) -> None:
        model = onnx.load(folder / file)
        graph, output = model.graph, model.graph.output[0]
        for node in graph.node:
            node.output[:] = ["sound" if name == output.name else name for name in node.output]
            node.input[:] = ["sound" if name == output.name else name for name in node.input]
        numbers = {"at": [items], "first": [0], "beyond": [1]}
        graph.initializer.extend(
            helper.make_tensor(name, TensorProto.INT64, [1], values)
            for name, values in numbers.items()
        )
        kind = output.type.tensor_type.elem_type
        graph.initializer.append(helper.make_tensor("nothing", kind, [1], [0]))
        graph.node.extend(
            [
                helper.make_node("Shape", [graph.input[0].name], ["items"], start=0, end=1),
                helper.make_node("Equal", ["items", "at"], ["fails"]),
                helper.make_node("Where", ["fails", "beyond", "first"], ["index"]),
                helper.make_node("Gather", ["nothing", "index"], ["gathered"]),
                helper.make_node("Add", ["sound", "gathered"], [output.name]),
            ]
        )
        replace_graph(folder, file, model.SerializeToString())

    return change


def test_a_service_is_not_ready_before_every_graph_has_run_every_bucket(
    digits_repository: Path, tmp_path: Path
) -> None:
    manifest = json.loads((digits_repository / "digits" / "1" / "manifest.json").read_text())
    buckets, files = manifest["batchBuckets"], {graph["file"] for graph in manifest["graphs"]}
    broken = [(items, "decoder.onnx") for items in buckets]
    broken += [(buckets[2], file) for file in sorted(files - {"decoder.onnx"})]
    command = [sys.executable, "-m", "service", "--repository", str(tmp_path), *POLL]
    command += ["--listen", "127.0.0.1:0", "--metrics-port", "0"]
    lines: list[str] = []
    publish(digits_repository, tmp_path, 1, change=failing_at(*broken[0]))
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        service = ServiceProcess(process, lines.append, "127.0.0.1")
        try:
            for version, (items, file) in enumerate(broken, start=1):
                if version > 1:
                    publish(digits_repository, tmp_path, version, change=failing_at(items, file))
                wait_until(
                    lambda version=version: any(
                        f"digits/versions/{version}" in line for line in lines
                    )
                )
                assert not service.says("/readyz"), (items, file)
            with VaeClient(service.target) as client:
                with pytest.raises(VaeError) as caught:
                    client.sample("digits", 1)
                publish(digits_repository, tmp_path, len(broken) + 1)
                service.wait_until_ready()
                served = client.sample("digits", 1).model
        finally:
            process.kill()
            service.join()

    events = [json.loads(line) for line in lines]  # onnxruntime's own lines would be none
    loads = [(event["event"], event["model"]) for event in events if "model" in event]
    assert loads == [
        *(("model_load_failed", f"models/digits/versions/{n + 1}") for n in range(len(broken))),
        ("model_loaded", served),
    ]
    assert caught.value.reason == "MODEL_NOT_READY"
