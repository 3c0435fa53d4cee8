"""Seed to noise: the same item of a seed is the same number everywhere.

The generator is Philox4x64-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"),
a function of a key and a counter. The key is (seed, stream), where the stream says what the noise
is for. An item of `size` values owns B = ceil(size / 4) blocks: block b of item i has the counter
i x B + b + 1. So item i does not depend on how a request is split, batched or streamed. A pair of
words makes two normals by Box and Muller (1958), which takes a fixed count of draws per value.
"""

import enum
import secrets

import numpy as np
from numpy.typing import NDArray

_WORDS = 4  # 64-bit words in one Philox block
MAX_INDEX = 2**63
_VALUES_AT_ONCE = 65_536  # what is computed in between takes ten times the memory of the noise


class Stream(enum.IntEnum):
    """What noise is for; streams of one seed are independent."""

    SAMPLE = 0
    ENCODE = 1
    SCORE = 2


def new_seed() -> int:
    """A seed that nobody can guess, below 2**63 so that every language can hold it."""
    return secrets.randbits(63)


def standard_normal(
    seed: int, stream: Stream, start_index: int, count: int, size: int
) -> NDArray[np.float32]:
    """Standard normal noise of count items from start_index on, [count, size] float32."""
    blocks = -(-size // _WORDS)
    first = start_index * blocks
    counter = np.array([first & (2**64 - 1), first >> 64, 0, 0], np.uint64)
    generator = np.random.Philox(counter=counter, key=np.array([seed, stream], np.uint64))
    noise = np.empty((count, size), np.float32)
    rows = max(1, _VALUES_AT_ONCE // size)
    for start in range(0, count, rows):
        part = noise[start : start + rows]
        words = generator.random_raw(len(part) * blocks * _WORDS).reshape(len(part), -1, 2)
        part[:] = _normals(words)[:, :size]
    return noise


def _normals(words: NDArray[np.uint64]) -> NDArray[np.float64]:
    """Two normals of each pair of words: [items, pairs, 2] -> [items, 2 pairs]."""
    uniforms = (words >> np.uint64(11)).astype(np.float64) * 2.0**-53
    radius = np.sqrt(-2.0 * np.log1p(-uniforms[..., 0]))
    angle = 2.0 * np.pi * uniforms[..., 1]
    normals = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=-1)
    return normals.reshape(len(words), -1)
