"""Which right each method needs."""

import pytest
from inference import inference_service_pb2
from vae.v1 import model_service_pb2, vae_service_pb2

from service.auth.rights import right_of

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
