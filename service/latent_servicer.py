"""RPC <-> domain for what one does with a latent space: reconstruct, interpolate, traverse, score.

No logic of its own, as `service.servicer`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

import numpy as np
from vae.v1 import vae_service_pb2 as vae_pb

from service.catalogue import Catalogue, Served
from service.errors import InvalidRequest, NotOffered
from service.execution import Execution
from service.latents import interpolate, traverse
from service.model import Float32, Latents, Model, check_label_count
from service.observations import Fields, Observing, check_encoding
from service.sampling import new_seed
from service.scoring import scores_of
from service.servicer import VAE_SERVICE, check_index, read_latents
from service.transport import Call, Method
from service.transport.spliced import Buffer, Spliced
from service.wire import execution_field, number_of, tensor_field

_SCORED_BY: Final = number_of(vae_pb.ScoreResponse, "execution")
_RANGE: Final = 3.0  # standard deviations of the prior
_Decoding = vae_pb.ReconstructRequest | vae_pb.InterpolateRequest | vae_pb.TraverseRequest


@dataclass(frozen=True)
class _Response:
    """A response that decoding ends in, and the numbers of its fields."""

    message: type[vae_pb.ReconstructResponse | vae_pb.InterpolateResponse | vae_pb.TraverseResponse]
    observed: Fields
    latents: int
    execution: int


def _response(message: Any) -> _Response:
    numbers = (number_of(message, name) for name in ("latents", "execution"))
    return _Response(message, Fields.of(message), *numbers)


_RECONSTRUCTED: Final = _response(vae_pb.ReconstructResponse)
_INTERPOLATED: Final = _response(vae_pb.InterpolateResponse)
_TRAVERSED: Final = _response(vae_pb.TraverseResponse)


class LatentServicer:
    """vae.v1.VaeService's Reconstruct, Interpolate, Traverse and Score."""

    def __init__(self, catalogue: Catalogue, observing: Observing) -> None:
        self._catalogue = catalogue
        self._observing = observing

    def methods(self) -> list[Method]:
        """The methods, for a transport."""
        return [
            Method(VAE_SERVICE, "Reconstruct", vae_pb.ReconstructRequest, self.reconstruct),
            Method(VAE_SERVICE, "Interpolate", vae_pb.InterpolateRequest, self.interpolate),
            Method(VAE_SERVICE, "Traverse", vae_pb.TraverseRequest, self.traverse),
            Method(VAE_SERVICE, "Score", vae_pb.ScoreRequest, self.score),
        ]

    async def reconstruct(self, request: vae_pb.ReconstructRequest, call: Call) -> Spliced:
        """Encodes and decodes."""
        served = self._catalogue.get(request.model)
        execution = Execution(call.deadline, request.priority)
        observations = await self._observing.read(request, served.model, served.max_items)
        labels, seed = request.labels, request.seed if request.HasField("seed") else None
        if seed is None and request.HasField("start_index"):
            raise InvalidRequest("start_index", "is only used with a seed")
        check_index(request.start_index, len(observations))
        latents = await served.model.embed(
            observations, seed, request.start_index, labels, execution
        )
        return await self._decoded(served, latents, 1, request, execution, _RECONSTRUCTED)

    async def interpolate(self, request: vae_pb.InterpolateRequest, call: Call) -> Spliced:
        """Decodes ways between points."""
        served = self._catalogue.get(request.model)
        execution = Execution(call.deadline, request.priority)
        _check_continuous(served.model)
        if request.interpolation not in vae_pb.Interpolation.values():
            names = ", ".join(vae_pb.Interpolation.keys()[1:])
            raise InvalidRequest("interpolation", f"expected one of {names}")
        labels = request.labels
        start = await self._points(request.start, "start.", served, labels, execution)
        end = await self._points(request.end, "end.", served, labels, execution)
        if len(start) != len(end):
            raise InvalidRequest("end", f"expected {len(start)} items, as in start, not {len(end)}")
        _check_steps(request.steps, len(start), served)
        spherical = request.interpolation == vae_pb.INTERPOLATION_SPHERICAL
        latents = interpolate(start, end, request.steps, spherical=spherical)
        return await self._decoded(
            served, latents, request.steps, request, execution, _INTERPOLATED
        )

    async def traverse(self, request: vae_pb.TraverseRequest, call: Call) -> Spliced:
        """Decodes latents with one unit going through a range."""
        served = self._catalogue.get(request.model)
        execution = Execution(call.deadline, request.priority)
        model, labels = served.model, request.labels
        _check_continuous(model)
        units = int(np.prod(model.latent_shape))
        if not 0 <= request.unit < units:
            raise InvalidRequest("unit", f"expected 0 to {units - 1}, not {request.unit}")
        if request.HasField("minimum") != request.HasField("maximum"):
            raise InvalidRequest("minimum", "expected minimum and maximum, or neither")
        first, last = -_RANGE, _RANGE
        if request.HasField("minimum"):
            first, last = request.minimum, request.maximum
        if not (np.isfinite(first) and np.isfinite(last)):
            raise InvalidRequest("minimum", "expected finite numbers")
        points = np.zeros((1, *model.latent_shape), np.float32)
        if request.HasField("points"):
            points = await self._points(request.points, "points.", served, labels, execution)
        _check_steps(request.steps, len(points), served)
        latents = traverse(points, request.unit, first, last, request.steps)
        return await self._decoded(served, latents, request.steps, request, execution, _TRAVERSED)

    async def score(self, request: vae_pb.ScoreRequest, call: Call) -> Spliced:
        """Says how likely observations are."""
        served = self._catalogue.get(request.model)
        execution = Execution(call.deadline, request.priority)
        model, draws = served.model, request.draws or 1
        observations = await self._observing.read(request, model, served.max_items)
        most = served.max_items // len(observations)
        if not 1 <= draws <= most:
            raise InvalidRequest("draws", f"expected 1 to {most} for so many items, not {draws}")
        check_index(request.start_index, len(observations))
        seed = request.seed if request.HasField("seed") else new_seed()
        terms = await model.score(
            observations, draws, seed, request.start_index, request.labels, execution
        )
        scores = scores_of(terms, draws, model.version.manifest.elbo_percentiles)
        response = vae_pb.ScoreResponse(
            model=model.resource,
            rate=scores.rate,
            distortion=scores.distortion,
            elbo=scores.elbo,
            importance_bound=scores.importance_bound,
            percentile=scores.percentile,
            seed=seed,
        )
        ran = execution_field(_SCORED_BY, served.execution, execution)
        return Spliced((response.SerializeToString(), ran))

    async def _points(
        self,
        points: vae_pb.Points,
        path: str,
        served: Served,
        labels: Sequence[int],
        execution: Execution,
    ) -> Float32:
        """The latents [items, ...] that points of a model without codes stand for."""
        model = served.model
        if points.HasField("observations") or points.images:
            if points.HasField("latents"):
                raise InvalidRequest(f"{path}latents", "expected latents or observations, not both")
            seen = await self._observing.read(points, model, served.max_items, path)
            return await model.embed(seen, None, 0, labels, execution)
        if points.HasField("latent_space"):
            model.check_latent_space(points.latent_space)
        return cast("Float32", read_latents(points.latents, f"{path}latents", served))

    async def _decoded(
        self,
        served: Served,
        latents: Latents,
        steps: int,
        request: _Decoding,
        execution: Execution,
        response: _Response,
    ) -> Spliced:
        """The response to a request that ends in decoding latents [items x steps, ...]."""
        model, encoding = served.model, request.observation_encoding
        labels: Sequence[int] = request.labels
        items = len(latents) // steps
        if model.version.manifest.labels:
            check_label_count(labels, items)
            if len(labels) > 1:
                labels = [label for label in labels for _ in range(steps)]
        uint8 = check_encoding(encoding, model)
        observations = await model.decode(latents, None, labels, execution, uint8)
        space = model.version.manifest.latent_space
        head = response.message(model=model.resource, latent_space=space)
        pieces: list[Buffer] = [head.SerializeToString()]
        pieces += await self._observing.write(response.observed, observations, encoding)
        if request.include_latents:
            pieces += tensor_field(response.latents, latents)
        return Spliced((*pieces, execution_field(response.execution, served.execution, execution)))


def _check_continuous(model: Model) -> None:
    if model.code_count:
        raise NotOffered(f"the latents of {model.resource} are codes: there is nothing in between")


def _check_steps(steps: int, items: int, served: Served) -> None:
    most = served.max_items // items
    if not 2 <= steps <= most:
        raise InvalidRequest("steps", f"expected 2 to {most}, not {steps}")
