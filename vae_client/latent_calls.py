"""The calls of both clients that go through the latent space. As `vae_client.calls`."""

from collections.abc import Sequence

from numpy.typing import ArrayLike
from vae.v1 import vae_service_pb2 as pb

from vae_client import messages
from vae_client.calls import Call, Exchange
from vae_client.messages import Explored, Scores


def reconstruct(
    model: str,
    observations: ArrayLike,
    *,
    seed: int | None = None,
    start_index: int | None = None,
    labels: Sequence[int] = (),
    uint8: bool = False,
    priority: int = 0,
    timeout: float | None = None,
) -> Exchange[Explored]:
    """Observations [items, ...] encoded and decoded; by a draw from the posterior with a seed."""
    request = pb.ReconstructRequest(
        model=messages.resource(model),
        observations=messages.to_observations(observations),
        seed=seed,
        start_index=start_index,
        labels=labels,
        observation_encoding=messages.encoding(uint8),
        include_latents=True,
        priority=priority,
    )
    return messages.explored((yield Call(lambda on: on.vae.Reconstruct, request, timeout)))


def interpolate(
    model: str,
    start: ArrayLike,
    end: ArrayLike,
    steps: int,
    *,
    observed: bool = False,
    spherical: bool = False,
    latent_space: str | None = None,
    labels: Sequence[int] = (),
    uint8: bool = False,
    priority: int = 0,
    timeout: float | None = None,
) -> Exchange[Explored]:
    """The ways from start to end, [items, ...] latents each, or observations where `observed`.

    The results are [items x steps, ...], item by item, both ends included.
    """
    request = pb.InterpolateRequest(
        model=messages.resource(model),
        start=_points(start, observed, latent_space),
        end=_points(end, observed, latent_space),
        steps=steps,
        interpolation=pb.INTERPOLATION_SPHERICAL if spherical else pb.INTERPOLATION_LINEAR,
        labels=labels,
        observation_encoding=messages.encoding(uint8),
        include_latents=True,
        priority=priority,
    )
    return messages.explored((yield Call(lambda on: on.vae.Interpolate, request, timeout)))


def traverse(
    model: str,
    unit: int,
    steps: int,
    *,
    points: ArrayLike | None = None,
    observed: bool = False,
    minimum: float | None = None,
    maximum: float | None = None,
    latent_space: str | None = None,
    labels: Sequence[int] = (),
    uint8: bool = False,
    priority: int = 0,
    timeout: float | None = None,
) -> Exchange[Explored]:
    """One unit of the latents through a range, -3 to 3 unless given, all others as in points.

    points: [items, ...] latents, or observations where `observed`; None is the origin. The results
    are [items x steps, ...], item by item.
    """
    request = pb.TraverseRequest(
        model=messages.resource(model),
        points=None if points is None else _points(points, observed, latent_space),
        unit=unit,
        minimum=minimum,
        maximum=maximum,
        steps=steps,
        labels=labels,
        observation_encoding=messages.encoding(uint8),
        include_latents=True,
        priority=priority,
    )
    return messages.explored((yield Call(lambda on: on.vae.Traverse, request, timeout)))


def score(
    model: str,
    observations: ArrayLike,
    *,
    draws: int = 1,
    seed: int | None = None,
    start_index: int | None = None,
    labels: Sequence[int] = (),
    priority: int = 0,
    timeout: float | None = None,
) -> Exchange[Scores]:
    """How likely observations [items, ...] are, with so many draws from each posterior."""
    request = pb.ScoreRequest(
        model=messages.resource(model),
        observations=messages.to_observations(observations),
        draws=draws,
        seed=seed,
        start_index=start_index,
        labels=labels,
        priority=priority,
    )
    return messages.scores((yield Call(lambda on: on.vae.Score, request, timeout)))


def _points(values: ArrayLike, observed: bool, latent_space: str | None) -> pb.Points:
    if observed:
        return pb.Points(observations=messages.to_observations(values))
    return pb.Points(latents=messages.to_latents(values), latent_space=latent_space)
