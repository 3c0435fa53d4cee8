"""How urgent a request is, and what a client can learn of levels and precisions."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from inference import inference_service_pb2 as pb
from inference.inference_service_pb2_grpc import GRPCInferenceServiceStub

from scripts.launch import ServiceProcess, running_service
from tests.integration.inference_requests import (
    DECODER,
    ENCODER,
    Parameter,
    arrays_of,
    latents,
    request,
)
from tests.integration.publications import publish
from vae_client import AsyncVaeClient, VaeClient, VaeError
from vae_client.errors import error_of

POINTS = np.zeros((2, 8), np.float32)
SEEN = np.full((2, 1, 8, 8), 0.5, np.float32)
Make = Callable[..., Any]
CALLS: dict[str, Make] = {
    "sample": lambda client, **level: client.sample("digits", 2, **level),
    "encode": lambda client, **level: client.encode("digits", SEEN, **level),
    "decode": lambda client, **level: client.decode("digits", POINTS, **level),
    "reconstruct": lambda client, **level: client.reconstruct("digits", SEEN, **level),
    "interpolate": lambda client, **level: client.interpolate(
        "digits", POINTS, POINTS + 1, 2, **level
    ),
    "traverse": lambda client, **level: client.traverse("digits", 0, 2, **level),
    "score": lambda client, **level: client.score("digits", SEEN, **level),
    "sample_stream": lambda client, **level: list(client.sample_stream("digits", 2, **level)),
    "encode_stream": lambda client, **level: list(client.encode_stream("digits", [SEEN], **level)),
    "decode_stream": lambda client, **level: list(
        client.decode_stream("digits", [POINTS], **level)
    ),
}


@pytest.mark.parametrize("name", CALLS)
def test_every_call_that_runs_graphs_takes_a_level_that_exists(
    client: VaeClient, name: str
) -> None:
    for priority in (1, 3):
        assert CALLS[name](client, priority=priority)
    with pytest.raises(VaeError) as caught:
        CALLS[name](client, priority=4)
    assert (caught.value.code, caught.value.field) == (grpc.StatusCode.INVALID_ARGUMENT, "priority")
    assert "expected 1, the most urgent, to 3" in str(caught.value)


def test_the_asyncio_client_sends_it_too(service: ServiceProcess) -> None:
    async def call() -> None:
        async with AsyncVaeClient(service.target) as client:
            await client.decode("digits", POINTS, priority=1)
            with pytest.raises(VaeError, match="priority"):
                await client.decode("digits", POINTS, priority=-1)

    asyncio.run(call())


@pytest.mark.parametrize(
    "level", [Parameter(uint64_param=1), Parameter(int64_param=3), Parameter(uint64_param=0)]
)
def test_tritons_parameter_is_taken_as_its_client_sends_it(
    stub: GRPCInferenceServiceStub, level: pb.InferParameter
) -> None:
    message = request(DECODER, arrays={"latents": latents()}, parameters={"priority": level})
    assert arrays_of(stub.ModelInfer(message))["observations"].shape == (2, 1, 8, 8)


@pytest.mark.parametrize(
    "level", [Parameter(uint64_param=4), Parameter(int64_param=-1), Parameter(string_param="1")]
)
def test_a_level_that_does_not_exist_is_refused(
    stub: GRPCInferenceServiceStub, level: pb.InferParameter
) -> None:
    message = request(DECODER, arrays={"latents": latents()}, parameters={"priority": level})
    with pytest.raises(grpc.RpcError) as caught:
        stub.ModelInfer(message)
    error = error_of(caught.value)
    assert (error.code, error.field) == (grpc.StatusCode.INVALID_ARGUMENT, "parameters.priority")
    assert "0 to 3" in str(error)


def test_clients_learn_the_levels_and_the_precision_of_each_graph(
    digits_repository: Path, tmp_path: Path
) -> None:
    def change(folder: Path) -> None:
        """Publishes the decoder's file as that of int8 as well."""
        path = folder / "manifest.json"
        manifest = json.loads(path.read_text())
        [decoder] = [each for each in manifest["graphs"] if each["kind"] == "GRAPH_KIND_DECODER"]
        manifest["graphs"].append(decoder | {"precision": "int8"})
        path.write_text(json.dumps(manifest))

    publish(digits_repository, tmp_path, 1, change=change)
    (tmp_path / "digits" / "settings.toml").write_text("priority_levels = 5")
    with (
        running_service(tmp_path, "--precision", "int8") as service,
        VaeClient(service.target) as client,
        grpc.insecure_channel(service.target) as channel,
    ):
        model = client.model("digits")
        stub = GRPCInferenceServiceStub(channel)
        config = {
            name: stub.ModelConfig(pb.ModelConfigRequest(name=name)).config
            for name in (DECODER, ENCODER)
        }

    assert (model.priority_levels, model.default_priority_level) == (5, 3)
    assert {model.precisions[name] for name in ("decoder", "decoder_uint8")} == {"int8"}
    assert {model.precisions[name] for name in ("encoder", "scorer")} == {"float32"}
    assert config[DECODER].parameters["precision"].string_value == "int8"
    assert config[ENCODER].parameters["precision"].string_value == "float32"
    batching = config[DECODER].dynamic_batching
    assert (batching.priority_levels, batching.default_priority_level) == (5, 3)
