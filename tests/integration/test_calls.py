"""What the service answers, through vae_client."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
import pytest
from vae.v1 import vae_service_pb2
from vae.v1.vae_service_pb2_grpc import VaeServiceStub

from scripts.launch import ServiceProcess
from training.config import DataConfig
from training.data import load_dataset
from vae_client import AsyncVaeClient, VaeClient, VaeError


@pytest.fixture(scope="module")
def observations() -> np.ndarray:
    return load_dataset(DataConfig("digits")).observations("test")


def test_the_same_seed_draws_the_same_samples(client: VaeClient) -> None:
    first = client.sample("digits", 9, seed=3, include_latents=True)
    second = client.sample("digits", 9, seed=3, include_latents=True)

    assert first.observations.shape == (9, 1, 8, 8)
    assert first.seed == 3
    np.testing.assert_array_equal(first.observations, second.observations)
    assert first.latents is not None
    np.testing.assert_array_equal(first.latents, second.latents)


def test_another_seed_draws_other_samples(client: VaeClient) -> None:
    first = client.sample("digits", 9, seed=3)
    second = client.sample("digits", 9, seed=4)

    assert not np.allclose(first.observations, second.observations)


def test_a_picked_seed_is_reported_and_can_be_used_again(client: VaeClient) -> None:
    drawn = client.sample("digits", 4, include_latents=True)
    again = client.sample("digits", 4, seed=drawn.seed, include_latents=True)

    np.testing.assert_array_equal(drawn.latents, again.latents)


@pytest.mark.parametrize(("start", "count"), [(0, 1), (7, 1), (5, 100), (199, 1)])
def test_a_sample_does_not_depend_on_the_request_that_holds_it(
    client: VaeClient, start: int, count: int
) -> None:
    whole = client.sample("digits", 200, seed=11, include_latents=True)
    part = client.sample("digits", count, seed=11, start_index=start, include_latents=True)

    assert whole.latents is not None
    np.testing.assert_array_equal(whole.latents[start : start + count], part.latents)
    np.testing.assert_allclose(
        whole.observations[start : start + count], part.observations, atol=1e-6
    )


def test_an_answer_keeps_the_level_of_reproducibility_that_it_names(channel: grpc.Channel) -> None:
    stub = VaeServiceStub(channel)

    def sample(start: int, count: int) -> vae_service_pb2.SampleResponse:
        return stub.Sample(
            vae_service_pb2.SampleRequest(
                model="models/digits",
                sample_count=count,
                seed=5,
                start_index=start,
                include_latents=True,
            )
        )

    whole = sample(0, 64)
    assert whole.execution.reproducibility in (
        vae_service_pb2.REPRODUCIBILITY_SAME_NOISE,
        vae_service_pb2.REPRODUCIBILITY_SAME_BITS,
    )
    for start, count in ((0, 1), (63, 1), (17, 5), (0, 64)):
        part = sample(start, count)
        assert part.execution.reproducibility == whole.execution.reproducibility
        assert part.latents.data == whole.latents.data[32 * start : 32 * (start + count)]
        there = whole.observations.data[256 * start : 256 * (start + count)]
        if part.execution.reproducibility == vae_service_pb2.REPRODUCIBILITY_SAME_BITS:
            assert part.observations.data == there
        found, expected = (np.frombuffer(each, "<f4") for each in (part.observations.data, there))
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_temperature_zero_decodes_the_mode_of_the_prior(client: VaeClient) -> None:
    drawn = client.sample("digits", 2, temperature=0.0, include_latents=True)
    mode = client.decode("digits", np.zeros((1, 8)))

    assert drawn.latents is not None
    assert not drawn.latents.any()
    np.testing.assert_allclose(drawn.observations[0], mode.observations[0], atol=1e-6)


def test_latents_are_mean_plus_scaled_noise(client: VaeClient, observations: np.ndarray) -> None:
    posterior = client.encode("digits", observations[:64], include_latents=True, seed=5)

    assert posterior.latents is not None
    noise = (posterior.latents - posterior.mean) / np.exp(0.5 * posterior.log_variance)
    assert abs(noise.mean()) < 0.2
    assert abs(noise.std() - 1) < 0.2


def test_encode_without_latents_gives_no_seed(client: VaeClient, observations: np.ndarray) -> None:
    posterior = client.encode("digits", observations[:1])

    assert posterior.latents is None
    assert posterior.seed is None


def test_a_request_larger_than_any_batch_is_answered_in_order(
    client: VaeClient, observations: np.ndarray
) -> None:
    whole = client.encode("digits", observations[:297])
    parts = [client.encode("digits", observations[i : i + 50]).mean for i in range(0, 297, 50)]

    np.testing.assert_allclose(whole.mean, np.concatenate(parts), atol=1e-5)


def test_reconstructions_resemble_their_observations(
    client: VaeClient, observations: np.ndarray
) -> None:
    posterior = client.encode("digits", observations)
    decoded = client.decode("digits", posterior.mean, latent_space=posterior.latent_space)

    error = np.square(decoded.observations - observations).mean()
    assert error < np.square(observations - observations.mean(0)).mean()


def test_concurrent_callers_get_their_own_answers(
    service: ServiceProcess, client: VaeClient
) -> None:
    latents = np.random.default_rng(0).standard_normal((64, 8))
    expected = client.decode("digits", latents).observations

    async def decode_each() -> list[np.ndarray]:
        async with AsyncVaeClient(service.target) as caller:
            calls = [caller.decode("digits", latents[i : i + 1]) for i in range(64)]
            return [answer.observations[0] for answer in await asyncio.gather(*calls)]

    np.testing.assert_allclose(asyncio.run(decode_each()), expected, atol=1e-6)


def test_threads_share_a_client(client: VaeClient) -> None:
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda seed: client.sample("digits", 3, seed=seed), [1, 2] * 16))

    for answer in answers:
        np.testing.assert_allclose(
            answer.observations, answers[answer.seed - 1].observations, atol=1e-6
        )


def test_get_model_describes_what_is_served(client: VaeClient) -> None:
    model = client.model("digits")

    assert model.name == "models/digits/versions/1"
    assert model.default_version
    assert list(model.observations.shape) == [-1, 1, 8, 8]
    assert list(model.latents.shape) == [-1, 8]
    assert model.execution_provider == "CPUExecutionProvider"
    assert model.training_metrics["elbo"] < 0
    assert client.models() == [model]


def test_a_version_can_be_named(client: VaeClient) -> None:
    assert client.sample("models/digits/versions/1", 1).model == "models/digits/versions/1"


def test_a_deadline_ends_a_call_that_the_service_cannot_answer_in_time(
    client: VaeClient,
) -> None:
    with pytest.raises(VaeError) as caught:
        client.sample("digits", 4096, timeout=1e-4)

    assert caught.value.code.name == "DEADLINE_EXCEEDED"


def test_a_client_without_a_service_says_so(unused_port: int) -> None:
    with VaeClient(f"127.0.0.1:{unused_port}") as client, pytest.raises(VaeError) as caught:
        client.sample("digits", 1)

    assert caught.value.code.name == "UNAVAILABLE"
    assert caught.value.reason == ""


@pytest.fixture
def unused_port() -> int:
    import socket

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
