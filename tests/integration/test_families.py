"""A model of every family, published and served: its answers over a socket are its run's."""

from collections.abc import Iterator

import grpc
import numpy as np
import pytest
import torch
from inference import inference_service_pb2 as pb
from inference.inference_service_pb2_grpc import GRPCInferenceServiceStub
from numpy.typing import NDArray

from scripts.launch import running_service
from service.sampling import Stream, standard_normal
from tests.families import MODELS, Families
from training.checkpoint import Run
from training.model import Model
from vae_client import VaeClient, VaeError

pytestmark = pytest.mark.timeout(600)  # the first one may have to export all of them
ITEMS = 5
LABELS = (3, 1, 4, 1, 5)
TYPES = {"FP32": "<f4", "INT64": "<i8", "UINT8": "u1"}
NO_PIXELS = "numbers"


@pytest.fixture(scope="module")
def target(families: Families) -> Iterator[str]:
    for name in MODELS:
        families.version(name)
    with running_service(families.repository) as process:
        yield process.target


@pytest.fixture(scope="module")
def client(target: str) -> Iterator[VaeClient]:
    with VaeClient(target) as connected:
        yield connected


@pytest.fixture(scope="module")
def stub(target: str) -> Iterator[GRPCInferenceServiceStub]:
    with grpc.insecure_channel(target) as channel:
        yield GRPCInferenceServiceStub(channel)


@pytest.fixture(params=MODELS)
def name(request: pytest.FixtureRequest) -> str:
    """Each model in turn."""
    return str(request.param)


@pytest.fixture
def run(name: str, families: Families) -> Run:
    return families.run(name)


@pytest.fixture
def labels(run: Run) -> tuple[int, ...]:
    return () if run.model.label_count is None else LABELS


def label_of(model: Model) -> torch.Tensor | None:
    return None if model.label_count is None else torch.tensor(LABELS)


def noise_of(model: Model, stream: Stream, seed: int) -> torch.Tensor:
    """What the service draws items with, by its documented generator."""
    size = int(np.prod(model.noise_shape))
    flat = standard_normal(seed, stream, 0, ITEMS, size)
    return torch.from_numpy(flat.reshape(ITEMS, *model.noise_shape))


def infer(stub: GRPCInferenceServiceStub, graph: str, **arrays: NDArray) -> dict[str, NDArray]:
    """The outputs of a graph, each in the type that the answer says."""
    metadata = stub.ModelMetadata(pb.ModelMetadataRequest(name=graph))
    types = {tensor.name: tensor.datatype for tensor in metadata.inputs}
    request = pb.ModelInferRequest(model_name=graph)
    for key, array in arrays.items():
        request.inputs.add(name=key, datatype=types[key], shape=array.shape)
        request.raw_input_contents.append(array.astype(TYPES[types[key]]).tobytes())
    answer = stub.ModelInfer(request)
    assert {output.name for output in answer.outputs} == {each.name for each in metadata.outputs}
    return {
        output.name: np.frombuffer(data, TYPES[output.datatype]).reshape(output.shape)
        for output, data in zip(answer.outputs, answer.raw_output_contents, strict=True)
    }


def with_label(run: Run, **arrays: NDArray) -> dict[str, NDArray]:
    return arrays if run.model.label_count is None else arrays | {"label": np.array(LABELS)}


def test_a_sample_is_the_models_draw_of_its_seed(
    client: VaeClient, name: str, run: Run, labels: tuple[int, ...]
) -> None:
    drawn = client.sample(name, ITEMS, seed=7, labels=labels, include_latents=True)

    label = label_of(run.model)
    with torch.inference_mode():
        latents = run.model.sample_prior(noise_of(run.model, Stream.SAMPLE, 7), label)
        observations = run.model.decode(latents, label)
    np.testing.assert_allclose(drawn.latents, latents.numpy(), atol=1e-4)
    np.testing.assert_allclose(drawn.observations, observations.numpy(), atol=1e-4)
    assert drawn.latents.dtype == (np.int64 if name == "vq" else np.float32)


def test_the_temperature_says_how_far_from_the_mode_latents_are(
    client: VaeClient, name: str, labels: tuple[int, ...]
) -> None:
    def latents(temperature: float) -> NDArray:
        drawn = client.sample(
            name, ITEMS, seed=7, labels=labels, temperature=temperature, include_latents=True
        )
        assert drawn.latents is not None
        return drawn.latents[:, :5]  # the first group of a ladder; the next depend on its draw

    mode, usual = latents(0.0), latents(1.0)
    assert (mode != usual).any()
    if not labels:
        np.testing.assert_allclose(mode, np.broadcast_to(mode[0], mode.shape), atol=1e-5)
    if name == "vq":
        with pytest.raises(VaeError, match="expected 0 or 1: models/vq/versions/1 draws codes"):
            latents(0.5)
        return
    np.testing.assert_allclose(latents(0.5), mode + 0.5 * (usual - mode), atol=1e-5)


def test_decoded_latents_of_a_sample_are_its_observations(
    client: VaeClient, name: str, labels: tuple[int, ...]
) -> None:
    drawn = client.sample(name, ITEMS, seed=8, labels=labels, include_latents=True)
    assert drawn.latents is not None

    decoded = client.decode(name, drawn.latents, latent_space=drawn.latent_space, labels=labels)

    np.testing.assert_allclose(decoded.observations, drawn.observations, atol=1e-5)


def test_encode_gives_the_posterior_of_the_model_and_a_draw_of_its_seed(
    client: VaeClient, name: str, run: Run, labels: tuple[int, ...]
) -> None:
    observations = run.dataset().observations("test")[:ITEMS]

    posterior = client.encode(name, observations, include_latents=True, seed=9, labels=labels)

    with torch.inference_mode():
        latents, mean, log_variance = run.model.encode(
            torch.from_numpy(observations),
            noise_of(run.model, Stream.ENCODE, 9),
            label_of(run.model),
        )
    np.testing.assert_allclose(posterior.mean, mean.numpy(), atol=1e-4)
    np.testing.assert_allclose(posterior.log_variance, log_variance.numpy(), atol=1e-4)
    np.testing.assert_allclose(posterior.latents, latents.numpy(), atol=1e-4)


def test_the_scorer_gives_the_terms_of_the_bound(
    stub: GRPCInferenceServiceStub, name: str, run: Run
) -> None:
    if not run.model.bounds_likelihood:
        with pytest.raises(grpc.RpcError) as caught:
            stub.ModelMetadata(pb.ModelMetadataRequest(name=f"{name}.scorer"))
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND
        return
    observations = run.dataset().observations("test")[:ITEMS]
    noise = noise_of(run.model, Stream.ENCODE, 10)

    arrays = with_label(run, observations=observations, noise=noise.numpy())
    scores = infer(stub, f"{name}.scorer", **arrays)

    with torch.inference_mode():
        terms = run.model.elbo_terms(torch.from_numpy(observations), noise, label_of(run.model))
    for key, expected in (
        ("rate", terms.rate.sum(1)),
        ("distortion", terms.distortion),
        ("log_weight", terms.log_weight),
    ):
        np.testing.assert_allclose(scores[key], expected.numpy(), rtol=1e-4, atol=1e-3)


def test_a_prior_is_a_graph_unless_latents_are_noise(
    stub: GRPCInferenceServiceStub, name: str, run: Run
) -> None:
    listed = stub.ModelStatistics(pb.ModelStatisticsRequest()).model_stats
    assert (f"{name}.prior" in {graph.name for graph in listed}) != run.model.standard_prior
    if run.model.standard_prior:
        return
    noise = noise_of(run.model, Stream.SAMPLE, 11)

    latents = infer(stub, f"{name}.prior", **with_label(run, noise=noise.numpy()))["latents"]

    with torch.inference_mode():
        expected = run.model.sample_prior(noise, label_of(run.model)).numpy()
    assert latents.dtype == expected.dtype
    np.testing.assert_allclose(latents, expected, atol=1e-4)


def test_levels_are_served_where_observations_are_pixels(
    client: VaeClient, stub: GRPCInferenceServiceStub, name: str, run: Run, labels: tuple[int, ...]
) -> None:
    if name == NO_PIXELS:
        for call in (
            lambda: client.sample(name, 1, uint8=True),
            lambda: client.traverse(name, unit=0, steps=2, uint8=True),
            lambda: client.encode(name, np.zeros((1, *run.model.observation_shape), np.uint8)),
        ):
            with pytest.raises(VaeError, match=r"expected float32.*has no graph for uint8"):
                call()
        return
    floats = client.sample(name, ITEMS, seed=3, labels=labels).observations
    levels = client.sample(name, ITEMS, seed=3, labels=labels, uint8=True).observations
    assert np.abs(levels / 255 - floats).max() < 0.51 / 255

    in_levels = client.encode(name, levels, labels=labels)
    in_floats = client.encode(name, (levels / 255).astype(np.float32), labels=labels)
    np.testing.assert_allclose(in_levels.mean, in_floats.mean, atol=1e-4)
    if run.model.bounds_likelihood:
        zero = np.zeros((ITEMS, *run.model.noise_shape), np.float32)
        by_level = infer(
            stub,
            f"{name}.scorer_uint8",
            **with_label(run, observations_uint8=levels, noise=zero),
        )
        by_float = infer(
            stub, f"{name}.scorer", **with_label(run, observations=levels / 255, noise=zero)
        )
        np.testing.assert_allclose(by_level["rate"], by_float["rate"], rtol=1e-4, atol=1e-3)


def test_a_scorer_draws_its_own_noise_and_says_with_which_seed(
    stub: GRPCInferenceServiceStub, families: Families
) -> None:
    observations = families.run("mlp").dataset().observations("test")[:ITEMS]
    request = pb.ModelInferRequest(model_name="mlp.scorer")
    request.inputs.add(name="observations", datatype="FP32", shape=observations.shape)
    request.raw_input_contents.append(observations.tobytes())

    first = stub.ModelInfer(request)
    request.parameters["seed"].CopyFrom(first.parameters["seed"])
    again = stub.ModelInfer(request)

    assert first.parameters["seed"].int64_param >= 0
    assert list(first.raw_output_contents) == list(again.raw_output_contents)


def test_a_model_says_what_its_latents_are(client: VaeClient) -> None:
    models = {model.name.split("/")[1]: model for model in client.models()}

    assert models.keys() == MODELS.keys()
    vq, ladder, conditional = models["vq"], models["ladder"], models["conditional"]
    assert (vq.code_count, vq.prior, list(vq.latents.shape)) == (7, "graph", [-1, 2, 2])
    assert [(group.name, list(group.shape)) for group in ladder.latent_groups] == [
        ("1x1_0", [-1, 5, 1, 1]),
        ("4x4_0", [-1, 1, 4, 4]),
    ]
    assert list(conditional.labels) == list("0123456789")
    assert models["mlp"].code_count == 0
    assert models[NO_PIXELS].value_range.maximum == float("inf")


@pytest.mark.parametrize("code", [-1, 7, 2**62])
def test_codes_that_the_model_does_not_have_are_refused(
    client: VaeClient, stub: GRPCInferenceServiceStub, code: int
) -> None:
    codes = np.array([[[0, 1], [6, code]]])
    with pytest.raises(VaeError, match="expected codes from 0 to 6") as refused:
        client.decode("vq", codes)
    assert refused.value.code is grpc.StatusCode.INVALID_ARGUMENT
    with pytest.raises(grpc.RpcError, match="expected codes from 0 to 6"):
        infer(stub, "vq.decoder", latents=codes)


def test_latents_of_the_other_kind_are_refused(client: VaeClient) -> None:
    with pytest.raises(VaeError, match="expected DATA_TYPE_INT64"):
        client.decode("vq", np.zeros((1, 2, 2)))
    with pytest.raises(VaeError, match="expected DATA_TYPE_FLOAT32"):
        client.decode("mlp", np.zeros((1, 3), np.int64))


@pytest.mark.parametrize("label", [-1, 10])
def test_labels_that_the_model_does_not_have_are_refused(client: VaeClient, label: int) -> None:
    with pytest.raises(VaeError, match="expected numbers from 0 to 9"):
        client.sample("conditional", 1, labels=[label])


def test_a_stream_draws_codes_as_one_call_does(client: VaeClient) -> None:
    whole = client.sample("vq", 9, seed=5, include_latents=True)
    chunks = list(client.sample_stream("vq", 9, seed=5, chunk_items=4, include_latents=True))

    np.testing.assert_array_equal(np.concatenate([each.latents for each in chunks]), whole.latents)
