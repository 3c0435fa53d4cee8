"""numpy <-> the messages of vae.v1; no I/O."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from vae.v1 import tensor_pb2, vae_service_pb2

Float32 = NDArray[np.float32]
Observations = NDArray[Any]  # float32, or uint8 where it was asked for
Latents = NDArray[Any]  # float32, or int64 of a model whose latents are codes


@dataclass(frozen=True)
class Samples:
    """Drawn observations [count, ...] and, on request, the latents [count, ...] behind them.

    model: the version that answered. seed: of the draw, given or picked by the service.
    """

    observations: Observations
    latents: Latents | None
    seed: int
    latent_space: str
    model: str


@dataclass(frozen=True)
class Posterior:
    """Mean and log_variance of q(z given x), [items, ...] each; on request one draw for each item.

    Of codes, the mean is what they are nearest to, and the log_variance means nothing.
    seed: of that draw. latent_space: pass it on to `decode`. model: the version that answered.
    """

    mean: Float32
    log_variance: Float32
    latents: Latents | None
    seed: int | None
    latent_space: str
    model: str


@dataclass(frozen=True)
class Decoded:
    """Means of the likelihood p(x given z), [items, ...]. model: the version that answered."""

    observations: Observations
    model: str


@dataclass(frozen=True)
class Explored:
    """Observations [items, ...] and the latents [items, ...] that they were decoded from.

    latent_space: pass it on to `decode`. model: the version that answered.
    """

    observations: Observations
    latents: Latents
    latent_space: str
    model: str


@dataclass(frozen=True)
class Scores:
    """How likely each item is, in nats, [items] each.

    elbo: -(rate + distortion). importance_bound: that of Burda et al. 2016, tighter with more
    draws. percentile: of the training data's ELBOs that lie below, 0 to 100; None if the model
    version does not hold them. seed: of the draws. model: the version that answered.
    """

    rate: Float32
    distortion: Float32
    elbo: Float32
    importance_bound: Float32
    percentile: Float32 | None
    seed: int
    model: str


def resource(model: str) -> str:
    """ "digits" -> "models/digits"; a full name ("models/digits/versions/2") stays as it is."""
    return model if model.startswith("models/") else f"models/{model}"


def sample_request(
    model: str,
    count: int,
    *,
    seed: int | None,
    start_index: int | None,
    temperature: float | None,
    labels: Sequence[int],
    include_latents: bool,
    uint8: bool,
    priority: int,
) -> vae_service_pb2.SampleRequest:
    """The request of `VaeClient.sample`."""
    return vae_service_pb2.SampleRequest(
        model=resource(model),
        sample_count=count,
        seed=seed,
        start_index=start_index,
        temperature=temperature,
        labels=labels,
        include_latents=include_latents,
        observation_encoding=encoding(uint8),
        priority=priority,
    )


def samples(response: vae_service_pb2.SampleResponse) -> Samples:
    """The answer to `sample_request`."""
    return Samples(
        observations=to_pixels(response.observations),
        latents=from_latents(response.latents) if response.HasField("latents") else None,
        seed=response.seed,
        latent_space=response.latent_space,
        model=response.model,
    )


def encode_request(
    model: str,
    observations: ArrayLike,
    *,
    include_latents: bool,
    seed: int | None,
    start_index: int | None,
    labels: Sequence[int],
    priority: int,
) -> vae_service_pb2.EncodeRequest:
    """The request of `VaeClient.encode`."""
    return vae_service_pb2.EncodeRequest(
        model=resource(model),
        observations=to_observations(observations),
        include_latents=include_latents,
        seed=seed,
        start_index=start_index,
        labels=labels,
        priority=priority,
    )


def posterior(response: vae_service_pb2.EncodeResponse) -> Posterior:
    """The answer to `encode_request`."""
    return Posterior(
        mean=to_array(response.mean),
        log_variance=to_array(response.log_variance),
        latents=from_latents(response.latents) if response.HasField("latents") else None,
        seed=response.seed if response.HasField("seed") else None,
        latent_space=response.latent_space,
        model=response.model,
    )


def decode_request(
    model: str,
    latents: ArrayLike,
    *,
    latent_space: str | None,
    labels: Sequence[int],
    uint8: bool,
    priority: int,
) -> vae_service_pb2.DecodeRequest:
    """The request of `VaeClient.decode`."""
    return vae_service_pb2.DecodeRequest(
        model=resource(model),
        latents=to_latents(latents),
        latent_space=latent_space,
        labels=labels,
        observation_encoding=encoding(uint8),
        priority=priority,
    )


def decoded(response: vae_service_pb2.DecodeResponse) -> Decoded:
    """The answer to `decode_request`."""
    return Decoded(observations=to_pixels(response.observations), model=response.model)


def explored(
    response: vae_service_pb2.ReconstructResponse
    | vae_service_pb2.InterpolateResponse
    | vae_service_pb2.TraverseResponse,
) -> Explored:
    """The answer to a call through the latent space."""
    return Explored(
        observations=to_pixels(response.observations),
        latents=from_latents(response.latents),
        latent_space=response.latent_space,
        model=response.model,
    )


def scores(response: vae_service_pb2.ScoreResponse) -> Scores:
    """The answer to `latent_calls.score`."""
    names = ("rate", "distortion", "elbo", "importance_bound")
    arrays = {name: np.array(getattr(response, name), np.float32) for name in names}
    percentile = np.array(response.percentile, np.float32) if response.percentile else None
    return Scores(**arrays, percentile=percentile, seed=response.seed, model=response.model)


def encode_stream_request(
    model: str, observations: ArrayLike, labels: Sequence[int], priority: int
) -> vae_service_pb2.EncodeStreamRequest:
    """One request of `VaeClient.encode_stream`."""
    request = encode_request(
        model,
        observations,
        include_latents=False,
        seed=None,
        start_index=None,
        labels=labels,
        priority=priority,
    )
    return vae_service_pb2.EncodeStreamRequest(request=request)


def decode_stream_request(
    model: str,
    latents: ArrayLike,
    latent_space: str | None,
    labels: Sequence[int],
    uint8: bool,
    priority: int,
) -> vae_service_pb2.DecodeStreamRequest:
    """One request of `VaeClient.decode_stream`."""
    request = decode_request(
        model, latents, latent_space=latent_space, labels=labels, uint8=uint8, priority=priority
    )
    return vae_service_pb2.DecodeStreamRequest(request=request)


def encoding(uint8: bool) -> vae_service_pb2.ObservationEncoding.ValueType:
    """How observations shall come."""
    return (
        vae_service_pb2.OBSERVATION_ENCODING_UINT8
        if uint8
        else vae_service_pb2.OBSERVATION_ENCODING_UNSPECIFIED
    )


def to_observations(values: ArrayLike) -> tensor_pb2.Tensor:
    """A uint8 tensor of uint8 values, whose 0 to 255 span the model's value range; else float32."""
    array = np.asarray(values)
    if array.dtype != np.uint8:
        return to_tensor(array, "observations")
    return tensor_pb2.Tensor(
        data_type=tensor_pb2.DATA_TYPE_UINT8, shape=array.shape, data=array.tobytes()
    )


def to_latents(values: ArrayLike) -> tensor_pb2.Tensor:
    """An int64 tensor of signed integers, which are codes; else float32."""
    array = np.asarray(values)
    if not np.issubdtype(array.dtype, np.signedinteger):
        return to_tensor(array, "latents")
    data = np.ascontiguousarray(array, "<i8")
    return tensor_pb2.Tensor(
        data_type=tensor_pb2.DATA_TYPE_INT64, shape=array.shape, data=data.tobytes()
    )


def to_tensor(values: ArrayLike, name: str) -> tensor_pb2.Tensor:
    """A float32 tensor of floating-point values.

    Raises TypeError for integers, which are mostly pixels that nobody has scaled yet.
    """
    array = np.asarray(values)
    if not np.issubdtype(array.dtype, np.floating):
        raise TypeError(
            f"{name} must be floating-point numbers in the model's value range, not {array.dtype}"
        )
    data = np.ascontiguousarray(array, "<f4")
    return tensor_pb2.Tensor(
        data_type=tensor_pb2.DATA_TYPE_FLOAT32, shape=array.shape, data=data.tobytes()
    )


def to_pixels(tensor: tensor_pb2.Tensor) -> Observations:
    """As to_array, for observations, which may be uint8."""
    if tensor.data_type == tensor_pb2.DATA_TYPE_UINT8:
        return np.frombuffer(tensor.data, np.uint8).reshape(tuple(tensor.shape))
    return to_array(tensor)


def from_latents(tensor: tensor_pb2.Tensor) -> Latents:
    """As to_array, for latents, which may be codes of int64."""
    if tensor.data_type == tensor_pb2.DATA_TYPE_INT64:
        return np.frombuffer(tensor.data, "<i8").reshape(tuple(tensor.shape))
    return to_array(tensor)


def to_array(tensor: tensor_pb2.Tensor) -> Float32:
    """A read-only array on the tensor's bytes; no copy. Raises ValueError for another dtype."""
    if tensor.data_type != tensor_pb2.DATA_TYPE_FLOAT32:
        name = tensor_pb2.DataType.Name(tensor.data_type)
        raise ValueError(f"this client reads float32 tensors, not {name}; is it too old?")
    return np.frombuffer(tensor.data, "<f4").reshape(tuple(tensor.shape))
