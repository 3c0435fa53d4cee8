"""RPC <-> domain: reads requests, checks their numbers, writes responses. No logic of its own."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Final

from vae.v1 import tensor_pb2
from vae.v1 import vae_service_pb2 as vae_pb

from service import tensors
from service.catalogue import Catalogue, Served
from service.errors import InvalidRequest
from service.execution import Execution
from service.model import Latents, Model
from service.observations import Fields, Observing, check_encoding
from service.sampling import MAX_INDEX, new_seed
from service.streams import answer_in_order
from service.transport import Call, Method, Response, Stream, StreamMethod
from service.transport.spliced import Buffer, Spliced
from service.wire import execution_field, number_of, tensor_field, within

VAE_SERVICE = vae_pb.DESCRIPTOR.services_by_name["VaeService"].full_name
_SAMPLED: Final = Fields.of(vae_pb.SampleResponse)
_SAMPLED_LATENTS: Final = number_of(vae_pb.SampleResponse, "latents")
_SAMPLED_BY: Final = number_of(vae_pb.SampleResponse, "execution")
_MEAN: Final = number_of(vae_pb.EncodeResponse, "mean")
_LOG_VARIANCE: Final = number_of(vae_pb.EncodeResponse, "log_variance")
_LATENTS: Final = number_of(vae_pb.EncodeResponse, "latents")
_ENCODED_BY: Final = number_of(vae_pb.EncodeResponse, "execution")
_DECODED: Final = Fields.of(vae_pb.DecodeResponse)
_DECODED_BY: Final = number_of(vae_pb.DecodeResponse, "execution")
_SAMPLE: Final = number_of(vae_pb.SampleStreamResponse, "response")
_ENCODE: Final = number_of(vae_pb.EncodeStreamResponse, "response")
_DECODE: Final = number_of(vae_pb.DecodeStreamResponse, "response")
_MAX_TEMPERATURE = 1000.0  # far beyond any use, and noise times it is finite in float32


class Servicer:
    """vae.v1.VaeService's Sample, Encode and Decode, and their streams."""

    def __init__(self, catalogue: Catalogue, observing: Observing) -> None:
        self._catalogue = catalogue
        self._observing = observing

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
        served = self._catalogue.get(request.model)
        draw = _draw(request, served.model, served.max_items)
        return await self._sample(served, draw, request.sample_count, request.labels, call)

    async def sample_stream(self, stream: Stream) -> None:
        """Draws from the prior and decodes, chunk by chunk; the client's reading sets the pace."""
        message = await stream.receive()
        if not isinstance(message, vae_pb.SampleStreamRequest):
            raise InvalidRequest("request", "expected one message")
        request = message.request
        served = self._catalogue.get(request.model)
        most, buckets = served.max_items, served.model.version.manifest.batch_buckets
        chunk = message.chunk_items or min(max(buckets), most)
        if not 1 <= chunk <= most:
            raise InvalidRequest("chunk_items", f"expected 0 to {most}, not {chunk}")
        draw = _draw(request, served.model, MAX_INDEX)
        end = draw.start_index + request.sample_count
        for start in range(draw.start_index, end, chunk):
            count = min(chunk, end - start)
            part = replace(draw, start_index=start)
            response = await self._sample(served, part, count, request.labels, stream.call)
            head = vae_pb.SampleStreamResponse(start_index=start).SerializeToString()
            await stream.send(within(_SAMPLE, head, response))

    async def encode_stream(self, stream: Stream) -> None:
        """Encodes one request after the other."""

        async def answer(message: vae_pb.EncodeStreamRequest) -> Response:
            return within(_ENCODE, b"", await self.encode(message.request, stream.call))

        await answer_in_order(stream, answer)

    async def decode_stream(self, stream: Stream) -> None:
        """Decodes one request after the other."""

        async def answer(message: vae_pb.DecodeStreamRequest) -> Response:
            return within(_DECODE, b"", await self.decode(message.request, stream.call))

        await answer_in_order(stream, answer)

    async def encode(self, request: vae_pb.EncodeRequest, call: Call) -> Spliced:
        """Computes posteriors."""
        served = self._catalogue.get(request.model)
        model = served.model
        observations = await self._observing.read(request, model, served.max_items)
        if not request.include_latents:
            for name in ("seed", "start_index"):
                if request.HasField(name):
                    raise InvalidRequest(name, "is only used with include_latents")
        check_index(request.start_index, len(observations))
        seed: int | None = None
        if request.include_latents:
            seed = request.seed if request.HasField("seed") else new_seed()
        execution = Execution(call.deadline, request.priority)
        posterior = await model.encode(
            observations, seed, request.start_index, request.labels, execution
        )
        space = model.version.manifest.latent_space
        head = vae_pb.EncodeResponse(model=model.resource, seed=seed, latent_space=space)
        pieces: list[Buffer] = [head.SerializeToString(), *tensor_field(_MEAN, posterior.mean)]
        pieces += tensor_field(_LOG_VARIANCE, posterior.log_variance)
        if posterior.latents is not None:
            pieces += tensor_field(_LATENTS, posterior.latents)
        return Spliced((*pieces, execution_field(_ENCODED_BY, served.execution, execution)))

    async def decode(self, request: vae_pb.DecodeRequest, call: Call) -> Spliced:
        """Computes the means of the likelihood."""
        served = self._catalogue.get(request.model)
        model = served.model
        latents = read_latents(request.latents, "latents", served)
        uint8 = check_encoding(request.observation_encoding, model)
        space = request.latent_space if request.HasField("latent_space") else None
        execution = Execution(call.deadline, request.priority)
        observations = await model.decode(latents, space, request.labels, execution, uint8)
        head = _decoded_head(model.resource)
        written = await self._observing.write(_DECODED, observations, request.observation_encoding)
        return Spliced((head, *written, execution_field(_DECODED_BY, served.execution, execution)))

    async def _sample(
        self, served: Served, draw: "_Draw", count: int, labels: Sequence[int], call: Call
    ) -> Spliced:
        model, execution = served.model, Execution(call.deadline, draw.priority)
        observations, latents = await model.sample(
            count, draw.seed, draw.start_index, draw.temperature, labels, execution, draw.uint8
        )
        response = vae_pb.SampleResponse(
            model=model.resource,
            seed=draw.seed,
            latent_space=model.version.manifest.latent_space,
        )
        pieces: list[Buffer] = [response.SerializeToString()]
        pieces += await self._observing.write(_SAMPLED, observations, draw.encoding)
        if draw.include_latents:
            pieces += tensor_field(_SAMPLED_LATENTS, latents)
        return Spliced((*pieces, execution_field(_SAMPLED_BY, served.execution, execution)))


@dataclass(frozen=True)
class _Draw:
    """What a request says of its noise, and of how it is drawn."""

    seed: int
    start_index: int
    temperature: float
    include_latents: bool
    encoding: int
    uint8: bool
    priority: int


@lru_cache(maxsize=256)
def _decoded_head(resource: str) -> bytes:
    return vae_pb.DecodeResponse(model=resource).SerializeToString()


def _draw(request: vae_pb.SampleRequest, model: Model, most: int) -> _Draw:
    """The checked draw of a request for at most that many samples."""
    count = request.sample_count
    if not 1 <= count <= most:
        raise InvalidRequest("sample_count", f"expected 1 to {most}, not {count}")
    temperature = request.temperature if request.HasField("temperature") else 1.0
    if not 0 <= temperature <= _MAX_TEMPERATURE:  # NaN is not either
        raise InvalidRequest("temperature", f"expected a number from 0 to {_MAX_TEMPERATURE:g}")
    if model.code_count and temperature not in (0, 1):
        # The prior graph makes Gumbel noise of normal noise, which that of a wider normal is not.
        raise InvalidRequest(
            "temperature",
            f"expected 0 or 1: {model.resource} draws codes (its code_count is not 0)",
        )
    check_index(request.start_index, count)
    encoding = request.observation_encoding
    uint8 = check_encoding(encoding, model)
    seed = request.seed if request.HasField("seed") else new_seed()
    latents, priority = request.include_latents, request.priority
    return _Draw(seed, request.start_index, temperature, latents, encoding, uint8, priority)


def check_index(start_index: int, count: int) -> None:
    """Raises InvalidRequest if the items reach beyond a seed's sequence."""
    if start_index + count > MAX_INDEX:
        raise InvalidRequest("start_index", f"expected at most {MAX_INDEX - count}")


def read_latents(tensor: tensor_pb2.Tensor, field: str, served: Served) -> Latents:
    """The checked latents [items, ...] of a request: numbers, or codes of a model that has them."""
    model = served.model
    if not model.code_count:
        return tensors.to_array(tensor, field, model.latent_shape, served.max_items)
    codes = tensors.to_codes(tensor, field, model.latent_shape, served.max_items)
    model.check_codes(codes, f"{field}.data")
    return codes
