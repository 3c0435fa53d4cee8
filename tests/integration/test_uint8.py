"""Observations in uint8: a quarter of the bytes, the same answers to half a level."""

import numpy as np
import pytest

from vae_client import VaeClient


@pytest.mark.parametrize("count", [1, 2, 150])
def test_samples_in_uint8_are_the_nearest_levels(client: VaeClient, count: int) -> None:
    floats = client.sample("digits", count, seed=3).observations
    levels = client.sample("digits", count, seed=3, uint8=True).observations

    assert levels.dtype == np.uint8
    assert np.abs(levels / 255 - floats).max() < 0.51 / 255


def test_decode_gives_levels_on_request(client: VaeClient) -> None:
    latents = np.random.default_rng(0).standard_normal((70, 8))

    floats = client.decode("digits", latents).observations
    levels = client.decode("digits", latents, uint8=True).observations

    assert np.abs(levels / 255 - floats).max() < 0.51 / 255


def test_encode_takes_levels(client: VaeClient) -> None:
    levels = np.random.default_rng(0).integers(0, 256, (70, 1, 8, 8), np.uint8)

    from_levels = client.encode("digits", levels, include_latents=True, seed=5)
    from_floats = client.encode(
        "digits", (levels / 255).astype(np.float32), include_latents=True, seed=5
    )

    np.testing.assert_allclose(from_levels.mean, from_floats.mean, atol=1e-5)
    np.testing.assert_allclose(from_levels.latents, from_floats.latents, atol=1e-5)


def test_streams_carry_levels_both_ways(client: VaeClient) -> None:
    chunks = list(client.sample_stream("digits", 50, seed=3, chunk_items=20, uint8=True))
    levels = [chunk.observations for chunk in chunks]
    means = [answer.mean for answer in client.encode_stream("digits", levels)]
    decoded = list(client.decode_stream("digits", means, uint8=True))

    assert [array.dtype for array in levels] == [np.uint8] * 3
    assert [answer.observations.shape for answer in decoded] == [array.shape for array in levels]
    whole = client.sample("digits", 50, seed=3, uint8=True).observations
    np.testing.assert_allclose(np.concatenate(levels).astype(int), whole.astype(int), atol=1)
