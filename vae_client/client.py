"""The blocking client."""

from collections.abc import Iterable, Iterator, Sequence
from types import TracebackType
from typing import Self, TypeVar

import grpc
from numpy.typing import ArrayLike
from vae.v1 import model_service_pb2 as models_pb
from vae.v1 import model_service_pb2_grpc as models_grpc
from vae.v1 import vae_service_pb2_grpc as vae_grpc

from vae_client import messages
from vae_client.channel import DEFAULT_TIMEOUT, OPTIONS, address
from vae_client.errors import error_of
from vae_client.messages import Decoded, Posterior, Samples

_Response = TypeVar("_Response")
_Request = TypeVar("_Request")


class VaeClient:
    """Calls a service from threads. Safe to share between them; make one and keep it.

    target: "HOST:PORT", a name with several addresses is balanced over all of them; or any gRPC
    target such as "unix:/run/vae.sock". timeout: seconds for a call that gives none of its own.
    credentials: for TLS; None talks in the clear. model: "digits" (its default version) or
    "models/digits/versions/2". Every method raises VaeError.
    """

    def __init__(
        self,
        target: str,
        *,
        timeout: float = DEFAULT_TIMEOUT,
        credentials: grpc.ChannelCredentials | None = None,
    ) -> None:
        if credentials is None:
            self._channel = grpc.insecure_channel(address(target), OPTIONS)
        else:
            self._channel = grpc.secure_channel(address(target), credentials, OPTIONS)
        self._timeout = timeout
        self._vae = vae_grpc.VaeServiceStub(self._channel)
        self._models = models_grpc.ModelServiceStub(self._channel)

    def sample(
        self,
        model: str,
        count: int,
        *,
        seed: int | None = None,
        start_index: int | None = None,
        temperature: float | None = None,
        labels: Sequence[int] = (),
        include_latents: bool = False,
        timeout: float | None = None,
    ) -> Samples:
        """Draws count samples. The same seed and start_index give the same samples again."""
        request = messages.sample_request(
            model,
            count,
            seed=seed,
            start_index=start_index,
            temperature=temperature,
            labels=labels,
            include_latents=include_latents,
        )
        return messages.samples(self._call(self._vae.Sample, request, timeout))

    def encode(
        self,
        model: str,
        observations: ArrayLike,
        *,
        include_latents: bool = False,
        seed: int | None = None,
        start_index: int | None = None,
        labels: Sequence[int] = (),
        timeout: float | None = None,
    ) -> Posterior:
        """The posterior of observations [items, ...] in the model's value range."""
        request = messages.encode_request(
            model,
            observations,
            include_latents=include_latents,
            seed=seed,
            start_index=start_index,
            labels=labels,
        )
        return messages.posterior(self._call(self._vae.Encode, request, timeout))

    def decode(
        self,
        model: str,
        latents: ArrayLike,
        *,
        latent_space: str | None = None,
        labels: Sequence[int] = (),
        timeout: float | None = None,
    ) -> Decoded:
        """The observations of latents [items, ...]; a latent_space is checked by the service."""
        request = messages.decode_request(model, latents, latent_space=latent_space, labels=labels)
        return messages.decoded(self._call(self._vae.Decode, request, timeout))

    def sample_stream(
        self,
        model: str,
        count: int,
        *,
        chunk_items: int = 0,
        seed: int | None = None,
        start_index: int | None = None,
        temperature: float | None = None,
        labels: Sequence[int] = (),
        include_latents: bool = False,
        timeout: float | None = None,
    ) -> Iterator[Samples]:
        """Draws any number of samples, in chunks of chunk_items; 0 leaves that to the service.

        Goes on at another replica where a stream broke; the samples stay the same. timeout is for
        each stream, and None sets no deadline.
        """
        request = messages.sample_request(
            model,
            count,
            seed=seed,
            start_index=start_index,
            temperature=temperature,
            labels=labels,
            include_latents=include_latents,
        )
        state = messages.SampleStream(request, chunk_items)
        while not state.done:
            try:
                for message in self._vae.SampleStream(state.request(), timeout=timeout):
                    yield state.take(message)
            except grpc.RpcError as error:
                failure = error_of(error)
                if not state.goes_on(failure):
                    raise failure from error

    def encode_stream(
        self,
        model: str,
        batches: Iterable[ArrayLike],
        *,
        labels: Sequence[int] = (),
        timeout: float | None = None,
    ) -> Iterator[Posterior]:
        """The posterior of each batch of observations, in order; timeout None sets no deadline."""
        requests = (messages.encode_stream_request(model, batch, labels) for batch in batches)
        try:
            for message in self._vae.EncodeStream(requests, timeout=timeout):
                yield messages.posterior(message.response)
        except grpc.RpcError as error:
            raise error_of(error) from error

    def decode_stream(
        self,
        model: str,
        batches: Iterable[ArrayLike],
        *,
        latent_space: str | None = None,
        labels: Sequence[int] = (),
        timeout: float | None = None,
    ) -> Iterator[Decoded]:
        """The observations of each batch of latents, in order; timeout None sets no deadline."""
        requests = (
            messages.decode_stream_request(model, batch, latent_space, labels) for batch in batches
        )
        try:
            for message in self._vae.DecodeStream(requests, timeout=timeout):
                yield messages.decoded(message.response)
        except grpc.RpcError as error:
            raise error_of(error) from error

    def model(self, model: str, *, timeout: float | None = None) -> models_pb.Model:
        """What the service says of a model: shapes, value range, provider, training metrics."""
        request = models_pb.GetModelRequest(name=messages.resource(model))
        return self._call(self._models.GetModel, request, timeout).model

    def models(self, *, timeout: float | None = None) -> list[models_pb.Model]:
        """Every served model version, by name and then by version."""
        found: list[models_pb.Model] = []
        request = models_pb.ListModelsRequest()
        while True:
            page = self._call(self._models.ListModels, request, timeout)
            found += page.models
            if not page.next_page_token:
                return found
            request.page_token = page.next_page_token

    def close(self) -> None:
        """Ends the connections."""
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _call(
        self,
        method: "grpc.UnaryUnaryMultiCallable[_Request, _Response]",
        request: _Request,
        timeout: float | None,
    ) -> _Response:
        try:
            return method(request, timeout=self._timeout if timeout is None else timeout)
        except grpc.RpcError as error:
            raise error_of(error) from error
