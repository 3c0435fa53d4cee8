"""What is served at the moment, with what a request needs to know of each model."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from vae.v1 import vae_service_pb2 as vae_pb

from service.errors import ModelNotReady
from service.model import Model, Models


@dataclass(frozen=True)
class Limits:
    """max_request_items: most items in one request. max_response_bytes: of a response's tensors."""

    max_request_items: int = 4096
    max_response_bytes: int = 48 * 2**20

    def max_items(self, model: Model) -> int:
        """Most items in one request: a Sample of 20 bytes must not be able to ask for gigabytes."""
        encoder, decoder = (model.version.graphs[kind] for kind in ("encoder", "decoder"))
        item = max(
            4 * math.prod(model.observation_shape) + decoder.input("latents").nbytes,  # Sample
            sum(spec.nbytes for spec in encoder.outputs),  # Encode with latents
            encoder.input("noise").nbytes,  # no response, but memory as well
        )
        return max(1, min(self.max_request_items, self.max_response_bytes // item))


@dataclass(frozen=True)
class Served:
    """A model and its limit. execution: what every vae.v1.Execution of it says, serialized."""

    model: Model
    max_items: int
    execution: bytes


class Catalogue:
    """The models by name, for all services. Empty until the first are published."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        # One thing, so that a request never sees names of one snapshot and models of another.
        self._snapshot: tuple[Models, dict[Model, Served]] | None = None

    def publish(self, models: Models) -> None:
        """Serves these models from now on; every RPC before is refused with ModelNotReady."""
        served = {
            model: Served(model, self._limits.max_items(model), _execution(model))
            for model in models.all
        }
        self._snapshot = models, served

    def get(self, name: str) -> Served:
        """What `name` stands for. Raises the errors of `Models.get`, and ModelNotReady."""
        models, served = self.snapshot()
        return served[models.get(name)]

    def snapshot(self) -> tuple[Models, Mapping[Model, Served]]:
        """All that is served at this moment. Raises ModelNotReady."""
        if self._snapshot is None:
            raise ModelNotReady("the models are still loading")
        return self._snapshot


def _execution(model: Model) -> bytes:
    level = vae_pb.REPRODUCIBILITY_SAME_NOISE
    if model.same_bits:
        level = vae_pb.REPRODUCIBILITY_SAME_BITS
    return vae_pb.Execution(provider=model.provider, reproducibility=level).SerializeToString()
