"""Noise: a function of seed, stream and index alone, and standard normal."""

import math

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given
from scipy import stats

from service.sampling import MAX_INDEX, Stream, new_seed, standard_normal

MASK = 2**64 - 1
SEED = 20_240_229
INDEXES = [0, 1, 1000, 2**32 - 2, 2**62, 2**63 - 6]


def philox4x64(counter: int, key: tuple[int, int]) -> list[int]:
    """Philox4x64-10 of Salmon et al. 2011 (section 3.3), in whole numbers."""
    c0, c1, c2, c3 = (counter >> (64 * word) & MASK for word in range(4))
    k0, k1 = key
    for _ in range(10):
        left, right = 0xD2E7470EE14C6C93 * c0, 0xCA5A826395121157 * c2
        c0, c1, c2, c3 = (right >> 64) ^ c1 ^ k0, right & MASK, (left >> 64) ^ c3 ^ k1, left & MASK
        k0, k1 = (k0 + 0x9E3779B97F4A7C15) & MASK, (k1 + 0xBB67AE8584CAA73B) & MASK
    return [c0, c1, c2, c3]


def specified_item(seed: int, stream: int, index: int, size: int) -> list[float]:
    """One item by the specification in the docstring of service.sampling."""
    blocks = math.ceil(size / 4)
    words = [
        word
        for block in range(blocks)
        for word in philox4x64(index * blocks + block + 1, (seed, stream))
    ]
    normals: list[float] = []
    for first, second in zip(words[::2], words[1::2], strict=True):
        uniforms = (first >> 11) / 2**53, (second >> 11) / 2**53
        radius = math.sqrt(-2 * math.log1p(-uniforms[0]))
        angle = 2 * math.pi * uniforms[1]
        normals += [radius * math.cos(angle), radius * math.sin(angle)]
    return normals[:size]


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        (0, "16554d9eca36314c db20fe9d672d0fdc d7e772cee186176b 7e68b68aec7ba23b"),
        (MASK, "87b092c3013fe90b 438c3c67be8d0224 9cc7d7c69cd777b6 a09caebf594f0ba0"),
    ],
)
def test_the_generator_that_these_tests_compute_is_that_of_the_paper(
    word: int, expected: str
) -> None:
    counter = sum(word << 64 * place for place in range(4))
    known_answer = [int(digits, 16) for digits in expected.split()]  # Random123's kat_vectors
    assert philox4x64(counter, (word, word)) == known_answer


@pytest.mark.parametrize("size", [1, 2, 4, 5, 8, 13])
@pytest.mark.parametrize("index", INDEXES)
@pytest.mark.parametrize("seed", [0, SEED, MASK])
def test_the_noise_is_what_the_docstring_specifies(seed: int, index: int, size: int) -> None:
    noise = standard_normal(seed, Stream.ENCODE, index, 2, size)
    expected = [specified_item(seed, 1, index + item, size) for item in range(2)]
    np.testing.assert_allclose(noise, expected, rtol=1e-6, atol=1e-6)


def test_the_noise_of_a_seed_never_changes() -> None:
    golden = [
        [-0.57025051, 1.94612753, -0.86485827, 0.58464634, -0.13685097],
        [0.03869648, -0.16406979, -1.85849440, -0.39226472, 0.60477287],
    ]
    np.testing.assert_allclose(standard_normal(7, Stream.SAMPLE, 0, 2, 5), golden, atol=1e-6)


@pytest.mark.parametrize("start", INDEXES)
@pytest.mark.parametrize("size", [1, 3, 4, 8, 50])
def test_an_item_is_the_same_alone_and_in_a_range(start: int, size: int) -> None:
    together = standard_normal(SEED, Stream.SAMPLE, start, 5, size)
    alone = [standard_normal(SEED, Stream.SAMPLE, start + item, 1, size) for item in range(5)]
    np.testing.assert_array_equal(together, np.concatenate(alone))


def test_items_too_large_to_be_computed_at_once_are_the_same_alone() -> None:
    size = 30_000
    together = standard_normal(SEED, Stream.SAMPLE, 3, 5, size)
    for item in range(5):
        alone = standard_normal(SEED, Stream.SAMPLE, 3 + item, 1, size)
        np.testing.assert_array_equal(together[item], alone[0])


@given(
    seed=st.integers(0, MASK),
    start=st.integers(0, MAX_INDEX - 40),
    counts=st.lists(st.integers(1, 10), min_size=1, max_size=4),
    size=st.integers(1, 20),
)
def test_a_range_is_the_same_however_it_is_split(
    seed: int, start: int, counts: list[int], size: int
) -> None:
    whole = standard_normal(seed, Stream.SAMPLE, start, sum(counts), size)
    starts = [start + sum(counts[:part]) for part in range(len(counts))]
    parts = [
        standard_normal(seed, Stream.SAMPLE, first, count, size)
        for first, count in zip(starts, counts, strict=True)
    ]
    np.testing.assert_array_equal(whole, np.concatenate(parts))


def test_the_last_index_has_noise_of_its_own() -> None:
    last, first = (standard_normal(SEED, Stream.SAMPLE, i, 1, 100) for i in (MAX_INDEX - 1, 0))
    assert not np.intersect1d(last, first).size


@pytest.mark.parametrize("size", [1, 3, 8])
def test_noise_is_float32_and_has_the_asked_shape(size: int) -> None:
    noise = standard_normal(SEED, Stream.SAMPLE, 3, 6, size)
    assert (noise.dtype, noise.shape) == (np.float32, (6, size))


@pytest.mark.parametrize("word", [0, 1, 2**63, MASK])
def test_noise_is_finite_for_every_word_of_the_generator(
    word: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Constant:
        def __init__(self, **_: object) -> None:
            pass

        def random_raw(self, count: int) -> np.ndarray:
            return np.full(count, word, np.uint64)

    monkeypatch.setattr(np.random, "Philox", Constant)
    noise = standard_normal(SEED, Stream.SAMPLE, 0, 1, 8)
    assert np.isfinite(noise).all()
    assert np.abs(noise).max() <= math.sqrt(2 * 53 * math.log(2)) + 1e-6


@pytest.fixture(scope="module")
def draws() -> np.ndarray:
    """Half a million normals, as [items, 8]. The seed is fixed: these tests give one result."""
    return standard_normal(SEED, Stream.SAMPLE, 0, 62_500, 8)


def test_draws_have_mean_0_and_variance_1(draws: np.ndarray) -> None:
    values = draws.astype(np.float64)
    error = 1 / math.sqrt(values.size)
    assert abs(values.mean()) < 4 * error
    assert abs(values.var() - 1) < 4 * math.sqrt(2) * error


def test_draws_have_the_quantiles_of_the_standard_normal_distribution(draws: np.ndarray) -> None:
    assert stats.kstest(draws.ravel(), "norm").pvalue > 0.001


@pytest.mark.parametrize("column", range(8))
def test_every_column_is_standard_normal(draws: np.ndarray, column: int) -> None:
    assert stats.kstest(draws[:, column], "norm").pvalue > 0.001


def test_the_tails_are_as_heavy_as_they_should_be(draws: np.ndarray) -> None:
    beyond = int((np.abs(draws) > 4).sum())
    assert stats.binomtest(beyond, draws.size, 2 * stats.norm.sf(4)).pvalue > 0.001


def test_columns_are_not_correlated(draws: np.ndarray) -> None:
    correlation = np.corrcoef(draws.T) - np.eye(8)
    assert np.abs(correlation).max() < 5 / math.sqrt(len(draws))


@pytest.mark.parametrize(
    ("seed", "stream", "start"),
    [(SEED, Stream.ENCODE, 0), (SEED + 1, Stream.SAMPLE, 0), (SEED, Stream.SAMPLE, 62_500)],
    ids=["another stream", "another seed", "other items"],
)
def test_other_noise_is_independent(
    draws: np.ndarray, seed: int, stream: Stream, start: int
) -> None:
    other = standard_normal(seed, stream, start, 62_500, 8)
    correlation = np.corrcoef(draws.ravel(), other.ravel())[0, 1]
    assert abs(correlation) < 4 / math.sqrt(draws.size)


def test_new_seeds_differ_and_fit_a_signed_integer_of_64_bits() -> None:
    seeds = {new_seed() for _ in range(100)}
    assert len(seeds) == 100
    assert max(seeds) < 2**63
