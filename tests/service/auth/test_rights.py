"""Which right each method needs."""

import pytest
from google.protobuf.message import Message
from inference import inference_service_pb2
from vae.v1 import model_service_pb2, vae_service_pb2

from service.auth.rights import right_of, without_admin
from service.completion import run
from service.errors import AdminDisabled
from service.transport import Call, Method

ADMIN = {"RepositoryModelLoad", "RepositoryModelUnload"}
FILES = (inference_service_pb2, model_service_pb2, vae_service_pb2)
PATHS = [
    f"{service.full_name}/{method.name}"
    for file in FILES
    for service in file.DESCRIPTOR.services_by_name.values()
    for method in service.methods
]


@pytest.mark.parametrize("path", PATHS)
def test_no_method_is_an_admin_call_by_an_oversight(path: str) -> None:
    assert (right_of(path) == "admin") == (path.rpartition("/")[2] in ADMIN)


@pytest.mark.parametrize(
    ("path", "right"),
    [
        ("grpc.health.v1.Health/Check", None),
        ("grpc.health.v1.Health/Watch", None),
        ("inference.GRPCInferenceService/ServerReady", None),
        ("inference.GRPCInferenceService/ModelInfer", "infer"),
        ("inference.GRPCInferenceService/ModelStatistics", "read"),
        ("inference.GRPCInferenceService/RepositoryIndex", "read"),
        ("inference.GRPCInferenceService/RepositoryModelUnload", "admin"),
        ("vae.v1.VaeService/DecodeStream", "infer"),
        ("vae.v1.ModelService/GetModel", "read"),
        ("vae.v1.VaeServiceExtra/Sample", "admin"),
        ("some.New/Method", "admin"),
    ],
)
def test_a_method_needs_its_right_and_an_unknown_one_the_highest(
    path: str, right: str | None
) -> None:
    assert right_of(path) == right


def test_admin_calls_are_refused_where_they_are_off_and_no_others() -> None:
    async def answer(request: Message, call: Call) -> Message:
        return request

    kind = vae_service_pb2.SampleRequest
    load = Method("inference.GRPCInferenceService", "RepositoryModelLoad", kind, answer)
    sample = Method("vae.v1.VaeService", "Sample", kind, answer)
    refused, kept = without_admin([load, sample])
    assert kept is sample
    assert refused.path == load.path
    assert isinstance(refused, Method)
    with pytest.raises(AdminDisabled, match="--admin true"):
        run(refused.handler(kind(), Call(None)))
