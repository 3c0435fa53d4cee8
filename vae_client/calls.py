"""The calls of both clients, without I/O: what is sent, and what is made of the answers.

Each function is a method of `VaeClient` and of `AsyncVaeClient`, which differ in who waits. model:
"digits" (its default version) or "models/digits/versions/2". priority: 1 is the most urgent level,
0 the model's default. timeout: seconds for this call, in place of the client's. uint8: observations
come as levels, whose 0 to 255 span the model's value range, in a quarter of the bytes.
"""

import inspect
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from google.protobuf.message import Message
from numpy.typing import ArrayLike
from vae.v1 import model_service_pb2 as models_pb

from vae_client import messages
from vae_client.messages import Decoded, Posterior, Samples
from vae_client.streams import InOrder, SampleStream
from vae_client.stubs import Stubs

T = TypeVar("T")


@dataclass(frozen=True)
class Call:
    """A unary call to make. timeout: None takes the client's."""

    method: Callable[[Stubs], Any]
    request: Message
    timeout: float | None


Exchange = Generator[Call, Any, T]
"""Yields calls, is sent their responses, returns the result."""


def sample(
    model: str,
    count: int,
    *,
    seed: int | None = None,
    start_index: int | None = None,
    temperature: float | None = None,
    labels: Sequence[int] = (),
    include_latents: bool = False,
    uint8: bool = False,
    priority: int = 0,
    timeout: float | None = None,
) -> Exchange[Samples]:
    """Draws count samples. The same seed and start_index give the same samples again.

    temperature: factor on the standard deviation of latents, 0 for their mode; of codes 0 or 1.
    """
    request = messages.sample_request(
        model,
        count,
        seed=seed,
        start_index=start_index,
        temperature=temperature,
        labels=labels,
        include_latents=include_latents,
        uint8=uint8,
        priority=priority,
    )
    return messages.samples((yield Call(lambda on: on.vae.Sample, request, timeout)))


def encode(
    model: str,
    observations: ArrayLike,
    *,
    include_latents: bool = False,
    seed: int | None = None,
    start_index: int | None = None,
    labels: Sequence[int] = (),
    priority: int = 0,
    timeout: float | None = None,
) -> Exchange[Posterior]:
    """The posterior of observations [items, ...]: floats in the model's range, or uint8."""
    request = messages.encode_request(
        model,
        observations,
        include_latents=include_latents,
        seed=seed,
        start_index=start_index,
        labels=labels,
        priority=priority,
    )
    return messages.posterior((yield Call(lambda on: on.vae.Encode, request, timeout)))


def decode(
    model: str,
    latents: ArrayLike,
    *,
    latent_space: str | None = None,
    labels: Sequence[int] = (),
    uint8: bool = False,
    priority: int = 0,
    timeout: float | None = None,
) -> Exchange[Decoded]:
    """The observations of latents [items, ...]; a latent_space is checked by the service."""
    request = messages.decode_request(
        model,
        latents,
        latent_space=latent_space,
        labels=labels,
        uint8=uint8,
        priority=priority,
    )
    return messages.decoded((yield Call(lambda on: on.vae.Decode, request, timeout)))


def model(model: str, *, timeout: float | None = None) -> Exchange[models_pb.Model]:
    """What the service says of a model: shapes, value range, provider, training metrics."""
    request = models_pb.GetModelRequest(name=messages.resource(model))
    response = yield Call(lambda on: on.models.GetModel, request, timeout)
    found: models_pb.Model = response.model
    return found


def models(*, timeout: float | None = None) -> Exchange[list[models_pb.Model]]:
    """Every served model version, by name and then by version."""
    found: list[models_pb.Model] = []
    token = ""
    while True:
        request = models_pb.ListModelsRequest(page_token=token)
        page = yield Call(lambda on: on.models.ListModels, request, timeout)
        found += page.models
        token = page.next_page_token
        if not token:
            return found


def sample_stream(
    model: str,
    count: int,
    *,
    chunk_items: int = 0,
    seed: int | None = None,
    start_index: int | None = None,
    temperature: float | None = None,
    labels: Sequence[int] = (),
    include_latents: bool = False,
    uint8: bool = False,
    priority: int = 0,
    timeout: float | None = None,
) -> SampleStream:
    """Draws any number of samples, in chunks of chunk_items; 0 leaves that to the service.

    Goes on at another replica where a stream broke; the samples stay the same. timeout is for all
    of them, an hour unless given.
    """
    request = messages.sample_request(
        model,
        count,
        seed=seed,
        start_index=start_index,
        temperature=temperature,
        labels=labels,
        include_latents=include_latents,
        uint8=uint8,
        priority=priority,
    )
    return SampleStream(request, chunk_items, timeout)


def encode_stream(
    model: str,
    batches: Iterable[ArrayLike],
    *,
    labels: Sequence[int] = (),
    priority: int = 0,
    timeout: float | None = None,
) -> InOrder[Posterior]:
    """The posterior of each batch of observations, in order.

    Goes on at another replica where a stream broke. timeout is for all of them, an hour unless
    given.
    """
    requests = (messages.encode_stream_request(model, batch, labels, priority) for batch in batches)
    return InOrder(lambda on: on.vae.EncodeStream, requests, messages.posterior, timeout)


def decode_stream(
    model: str,
    batches: Iterable[ArrayLike],
    *,
    latent_space: str | None = None,
    labels: Sequence[int] = (),
    uint8: bool = False,
    priority: int = 0,
    timeout: float | None = None,
) -> InOrder[Decoded]:
    """The observations of each batch of latents, in order. As encode_stream."""
    requests = (
        messages.decode_stream_request(model, batch, latent_space, labels, uint8, priority)
        for batch in batches
    )
    return InOrder(lambda on: on.vae.DecodeStream, requests, messages.decoded, timeout)


def named_after(method: T, function: Callable[..., Any]) -> T:
    """Gives a client's method the name, text and arguments of the function behind it."""
    signature = inspect.signature(function)
    own = inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY)
    vars(method)["__signature__"] = signature.replace(
        parameters=[own, *signature.parameters.values()]
    )
    for name in ("__name__", "__qualname__", "__doc__"):
        setattr(method, name, getattr(function, name))
    return method
