"""Which right a method needs."""

from typing import Final, Literal, get_args

Right = Literal["infer", "read", "admin"]
RIGHTS: Final[frozenset[str]] = frozenset(get_args(Right))

_VAE = "vae.v1.VaeService"
_OIP = "inference.GRPCInferenceService"
# Probes have no credentials. ModelReady is none of them: it would tell which names exist.
_OPEN: Final = {
    "grpc.health.v1.Health/Check",
    "grpc.health.v1.Health/Watch",
    f"{_OIP}/ServerLive",
    f"{_OIP}/ServerReady",
}
_INFER: Final = {f"{_OIP}/ModelInfer", f"{_OIP}/ModelStreamInfer"}
_READ: Final = {
    "vae.v1.ModelService/ListModels",
    "vae.v1.ModelService/GetModel",
    "grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
    f"{_OIP}/ServerMetadata",
    f"{_OIP}/ModelReady",
    f"{_OIP}/ModelMetadata",
    f"{_OIP}/ModelConfig",
    f"{_OIP}/ModelStatistics",
    f"{_OIP}/RepositoryIndex",
}


def right_of(path: str) -> Right | None:
    """What "SERVICE/METHOD" needs; None for everybody. Whatever is not listed needs "admin"."""
    if path in _OPEN:
        return None
    if path in _INFER or path.startswith(f"{_VAE}/"):
        return "infer"
    return "read" if path in _READ else "admin"
