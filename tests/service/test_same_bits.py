"""What a load measures: whether an item's bits depend on the batch that holds it."""

import numpy as np
import pytest

from service.batching import Arrays
from service.warming import gives_same_bits

INPUTS: Arrays = {"x": np.arange(8, dtype=np.float32)[:, None]}
BUCKETS = (1, 4, 8)


def plain(inputs: Arrays) -> Arrays:
    return {"y": inputs["x"] * 2}


def by_size(inputs: Arrays) -> Arrays:
    return {"y": inputs["x"] * 2 + (1e-6 if len(inputs["x"]) == 4 else 0)}


def by_place(inputs: Arrays) -> Arrays:
    y = inputs["x"] * 2
    y[-1] += 1e-6
    return {"y": y}


def test_a_function_of_the_item_alone_gives_the_same_bits() -> None:
    assert gives_same_bits(plain, INPUTS, BUCKETS)


@pytest.mark.parametrize("run", [by_size, by_place])
def test_what_looks_at_the_batch_does_not(run: object) -> None:
    assert not gives_same_bits(run, INPUTS, BUCKETS)  # type: ignore[arg-type]  # one of the above


def test_every_bucket_has_run_then() -> None:
    sizes: set[int] = set()

    def run(inputs: Arrays) -> Arrays:
        sizes.add(len(inputs["x"]))
        return plain(inputs)

    gives_same_bits(run, INPUTS, BUCKETS)
    assert sizes == set(BUCKETS)
