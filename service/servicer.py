"""RPC <-> domain: reads requests, checks their numbers, writes responses. No logic of its own."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from weakref import WeakKeyDictionary

from vae.v1 import tensor_pb2
from vae.v1 import vae_service_pb2 as vae_pb

from service import tensors
from service.errors import InvalidRequest, ModelNotReady
from service.model import Latents, Model, Models, Observations
from service.sampling import MAX_INDEX, new_seed
from service.streams import answer_in_order
from service.transport import Call, Method, Response, Stream, StreamMethod
from service.transport.spliced import Spliced
from service.wire import tensor_field, within

VAE_SERVICE = vae_pb.DESCRIPTOR.services_by_name["VaeService"].full_name
_SAMPLED = vae_pb.SampleResponse.DESCRIPTOR.fields_by_name["observations"].number
_DECODED = vae_pb.DecodeResponse.DESCRIPTOR.fields_by_name["observations"].number
_SAMPLE = vae_pb.SampleStreamResponse.DESCRIPTOR.fields_by_name["response"].number
_DECODE = vae_pb.DecodeStreamResponse.DESCRIPTOR.fields_by_name["response"].number
_ENCODINGS = {
    vae_pb.OBSERVATION_ENCODING_UNSPECIFIED: False,
    vae_pb.OBSERVATION_ENCODING_FLOAT32: False,
    vae_pb.OBSERVATION_ENCODING_UINT8: True,
}
_MAX_TEMPERATURE = 1000.0  # far beyond any use, and noise times it is finite in float32


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


class Servicer:
    """vae.v1.VaeService on a set of models."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._published: Models | None = None
        # Of every model that a request still holds, so that none falls between two snapshots.
        self._max_items: WeakKeyDictionary[Model, int] = WeakKeyDictionary()

    def publish(self, models: Models) -> None:
        """Serves these models from now on; every RPC before is refused with ModelNotReady."""
        for model in models.all:
            self._max_items[model] = self._limits.max_items(model)
        self._published = models

    @property
    def _models(self) -> Models:
        if self._published is None:
            raise ModelNotReady("the models are still loading")
        return self._published

    def methods(self) -> list[Method | StreamMethod]:
        """The methods of the service, for a transport."""
        return [
            Method(VAE_SERVICE, "Sample", vae_pb.SampleRequest, self.sample),
            Method(VAE_SERVICE, "Encode", vae_pb.EncodeRequest, self.encode),
            Method(VAE_SERVICE, "Decode", vae_pb.DecodeRequest, self.decode),
            StreamMethod(
                VAE_SERVICE, "SampleStream", vae_pb.SampleStreamRequest, self.sample_stream
            ),
            StreamMethod(
                VAE_SERVICE, "EncodeStream", vae_pb.EncodeStreamRequest, self.encode_stream
            ),
            StreamMethod(
                VAE_SERVICE, "DecodeStream", vae_pb.DecodeStreamRequest, self.decode_stream
            ),
        ]

    async def sample(self, request: vae_pb.SampleRequest, call: Call) -> Spliced:
        """Draws from the prior and decodes."""
        model = self._models.get(request.model)
        draw = _draw(request, self._max_items[model])
        return await _sample(model, draw, request.sample_count, request.labels, call)

    async def sample_stream(self, stream: Stream) -> None:
        """Draws from the prior and decodes, chunk by chunk; the client's reading sets the pace."""
        message = await stream.receive()
        if not isinstance(message, vae_pb.SampleStreamRequest):
            raise InvalidRequest("request", "expected one message")
        request = message.request
        model = self._models.get(request.model)
        most = self._max_items[model]
        chunk = message.chunk_items or min(max(model.version.manifest.batch_buckets), most)
        if not 1 <= chunk <= most:
            raise InvalidRequest("chunk_items", f"expected 0 to {most}, not {chunk}")
        draw = _draw(request, MAX_INDEX)
        end = draw.start_index + request.sample_count
        for start in range(draw.start_index, end, chunk):
            count = min(chunk, end - start)
            part = replace(draw, start_index=start)
            response = await _sample(model, part, count, request.labels, stream.call)
            head = vae_pb.SampleStreamResponse(start_index=start).SerializeToString()
            await stream.send(within(_SAMPLE, head, response))

    async def encode_stream(self, stream: Stream) -> None:
        """Encodes one request after the other."""

        async def answer(message: vae_pb.EncodeStreamRequest) -> Response:
            response = await self.encode(message.request, stream.call)
            return vae_pb.EncodeStreamResponse(response=response)

        await answer_in_order(stream, answer)

    async def decode_stream(self, stream: Stream) -> None:
        """Decodes one request after the other."""

        async def answer(message: vae_pb.DecodeStreamRequest) -> Response:
            return within(_DECODE, b"", await self.decode(message.request, stream.call))

        await answer_in_order(stream, answer)

    async def encode(self, request: vae_pb.EncodeRequest, call: Call) -> vae_pb.EncodeResponse:
        """Computes posteriors."""
        model = self._models.get(request.model)
        observations = self._observations(request, model)
        if not request.include_latents:
            for name in ("seed", "start_index"):
                if request.HasField(name):
                    raise InvalidRequest(name, "is only used with include_latents")
        _check_index(request.start_index, len(observations))
        seed: int | None = None
        if request.include_latents:
            seed = request.seed if request.HasField("seed") else new_seed()
        posterior = await model.encode(
            observations, seed, request.start_index, request.labels, call.deadline
        )
        return vae_pb.EncodeResponse(
            model=model.resource,
            mean=tensors.from_array(posterior.mean),
            log_variance=tensors.from_array(posterior.log_variance),
            latents=None if posterior.latents is None else tensors.from_array(posterior.latents),
            seed=seed,
            latent_space=model.version.manifest.latent_space,
        )

    async def decode(self, request: vae_pb.DecodeRequest, call: Call) -> Spliced:
        """Computes the means of the likelihood."""
        model = self._models.get(request.model)
        latents = self._latents(request, model)
        uint8 = _wants_uint8(request.observation_encoding)
        space = request.latent_space if request.HasField("latent_space") else None
        observations = await model.decode(latents, space, request.labels, call.deadline, uint8)
        head = vae_pb.DecodeResponse(model=model.resource).SerializeToString()
        return Spliced((head, *tensor_field(_DECODED, observations)))

    def _latents(self, request: vae_pb.DecodeRequest, model: Model) -> Latents:
        """The checked latents of a request."""
        tensor, shape, most = request.latents, model.latent_shape, self._max_items[model]
        if not model.code_count:
            return tensors.to_array(tensor, "latents", shape, most)
        codes = tensors.to_codes(tensor, "latents", shape, most)
        model.check_codes(codes, "latents.data")
        return codes

    def _observations(self, request: vae_pb.EncodeRequest, model: Model) -> Observations:
        """The checked observations of a request."""
        tensor, shape, most = request.observations, model.observation_shape, self._max_items[model]
        if tensor.data_type == tensor_pb2.DATA_TYPE_UINT8:
            return tensors.to_levels(tensor, "observations", shape, most)
        observations = tensors.to_array(tensor, "observations", shape, most)
        model.check_observations(observations)
        return observations


@dataclass(frozen=True)
class _Draw:
    """What a request says of its noise."""

    seed: int
    start_index: int
    temperature: float
    include_latents: bool
    uint8: bool


def _draw(request: vae_pb.SampleRequest, most: int) -> _Draw:
    """The checked draw of a request for at most that many samples."""
    count = request.sample_count
    if not 1 <= count <= most:
        raise InvalidRequest("sample_count", f"expected 1 to {most}, not {count}")
    temperature = request.temperature if request.HasField("temperature") else 1.0
    if not 0 <= temperature <= _MAX_TEMPERATURE:  # NaN is not either
        raise InvalidRequest("temperature", f"expected a number from 0 to {_MAX_TEMPERATURE:g}")
    _check_index(request.start_index, count)
    uint8 = _wants_uint8(request.observation_encoding)
    seed = request.seed if request.HasField("seed") else new_seed()
    return _Draw(seed, request.start_index, temperature, request.include_latents, uint8)


async def _sample(
    model: Model, draw: _Draw, count: int, labels: Sequence[int], call: Call
) -> Spliced:
    observations, latents = await model.sample(
        count, draw.seed, draw.start_index, draw.temperature, labels, call.deadline, draw.uint8
    )
    response = vae_pb.SampleResponse(
        model=model.resource,
        latents=tensors.from_array(latents) if draw.include_latents else None,
        seed=draw.seed,
        latent_space=model.version.manifest.latent_space,
    )
    return Spliced((response.SerializeToString(), *tensor_field(_SAMPLED, observations)))


def _check_index(start_index: int, count: int) -> None:
    if start_index + count > MAX_INDEX:
        raise InvalidRequest("start_index", f"expected at most {MAX_INDEX - count}")


def _wants_uint8(encoding: vae_pb.ObservationEncoding.ValueType) -> bool:
    try:
        return _ENCODINGS[encoding]
    except KeyError:
        raise InvalidRequest(
            "observation_encoding",
            "expected OBSERVATION_ENCODING_FLOAT32 or OBSERVATION_ENCODING_UINT8",
        ) from None
