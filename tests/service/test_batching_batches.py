"""What is in a batch of the batcher (rules 4 and 8 of the design)."""

import numpy as np
import pytest

from service.batching import BatchingOptions
from tests.service.fakes import Bench, MakeBench

# Rule 4: first in, first out; split and put together again; exactly full.


def test_requests_run_first_in_first_out(bench: Bench) -> None:
    bench.occupy()
    for first in (30, 10, 20):
        bench.call(first, items=2)
    bench.end_batch()
    bench.expect_batch(30, 31, 10, 11)
    bench.end_batch()
    bench.expect_batch(20, 21)


def test_a_request_larger_than_a_batch_is_split_and_put_together_again(bench: Bench) -> None:
    caller = bench.call(1, items=10)
    bench.expect_batch(1, 2, 3, 4)
    bench.end_batch()
    bench.expect_batch(5, 6, 7, 8)
    bench.end_batch()
    bench.expect_batch(9, 10)
    bench.end_batch()
    assert caller.answer() == caller.expected()


def test_the_last_rows_of_a_split_request_share_a_batch_with_the_next_one(bench: Bench) -> None:
    large, small = bench.call(1, items=6), bench.call(50)
    bench.expect_batch(1, 2, 3, 4)
    bench.end_batch()
    bench.expect_batch(5, 6, 50, 0)
    bench.end_batch()
    assert (large.answer(), small.answer()) == (large.expected(), small.expected())


def test_parts_that_end_in_another_order_are_put_together_in_order(make_bench: MakeBench) -> None:
    bench = make_bench(instances=2)
    caller = bench.call(1, items=8)
    bench.expect_batch(1, 2, 3, 4)
    bench.expect_batch(5, 6, 7, 8)
    first, second = ({"y": np.full((4, 1), value, np.float32)} for value in (1.0, 2.0))
    bench.end_batch(outputs=second, batch=1)
    bench.expect_idle()
    bench.end_batch(outputs=first, batch=0)
    assert caller.answer() == [1.0] * 4 + [2.0] * 4


def test_a_batch_may_be_exactly_full(bench: Bench) -> None:
    bench.occupy()
    callers = [bench.call(1), bench.call(2, items=3)]
    bench.end_batch()
    bench.expect_batch(1, 2, 3, 4)
    bench.end_batch(seconds=0.5)
    bench.expect_idle()
    assert [caller.answer() for caller in callers] == [caller.expected() for caller in callers]
    assert bench.observer.batches[-1] == (4, 0, 0.5)


def test_the_queue_delay_of_a_request_is_reported_once(bench: Bench) -> None:
    bench.occupy()
    bench.call(1, items=6)
    bench.end_batch(seconds=3.0)
    bench.expect_batch(1, 2, 3, 4)
    bench.end_batch(seconds=3.0)
    bench.expect_batch(5, 6)
    assert bench.observer.queue_delays == [0.0, 3.0]


def test_a_request_counts_with_its_last_batch(bench: Bench) -> None:
    bench.occupy()
    bench.call(1, items=6)
    bench.call(7)
    bench.end_batch()
    bench.expect_batch(1, 2, 3, 4)
    bench.end_batch()
    bench.expect_batch(5, 6, 7, 0)
    bench.end_batch()
    bench.expect_idle()
    assert bench.observer.requests == [1, 0, 2]


# Rule 8: padding happens in one place; padded rows never reach an answer.


@pytest.mark.parametrize(
    ("items", "padding"),
    [(1, 0), (2, 0), (3, 1), (4, 0), (5, 3), (6, 2), (7, 1), (8, 0)],
)
def test_a_batch_is_padded_with_zeros_to_the_next_bucket(
    make_bench: MakeBench, items: int, padding: int
) -> None:
    bench = make_bench(buckets=(1, 2, 4, 8))
    bench.call(1, items=items)
    bench.expect_batch(*range(1, items + 1), *[0] * padding)
    bench.end_batch(seconds=0.5)
    bench.expect_idle()
    assert bench.observer.batches == [(items, padding, 0.5)]


def test_padded_rows_never_reach_an_answer(bench: Bench) -> None:
    bench.occupy()
    callers = [bench.call(1), bench.call(2, items=2)]
    bench.end_batch()
    bench.expect_batch(1, 2, 3, 0)
    bench.end_batch()
    assert [caller.answer() for caller in callers] == [[3.0], [5.0, 7.0]]


def test_a_batch_smaller_than_every_bucket_is_padded_to_the_smallest(
    make_bench: MakeBench,
) -> None:
    bench = make_bench(buckets=(4, 8))
    caller = bench.call(1)
    bench.expect_batch(1, 0, 0, 0)
    bench.end_batch()
    assert caller.answer() == [3.0]


def test_padding_keeps_the_type_and_shape_of_an_input(bench: Bench) -> None:
    x = np.ones((3, 2, 5), np.uint8)
    bench.batcher.submit({"x": x}, 3, lambda entry: None)
    bench.next_event()
    batch = bench.session.batches[0]["x"]
    assert (batch.dtype, batch.shape) == (np.uint8, (4, 2, 5))


def test_every_input_of_a_request_is_in_its_batch(bench: Bench) -> None:
    bench.occupy()
    for value in (1, 2):
        inputs = {"x": np.full((1, 1), value, np.float32), "label": np.full(1, value, np.int64)}
        bench.batcher.submit(inputs, 1, lambda entry: None)
    bench.end_batch()
    bench.expect_batch(1, 2)
    assert bench.session.batches[1]["label"].tolist() == [1, 2]


def test_a_request_that_fills_a_bucket_alone_is_not_copied(bench: Bench) -> None:
    x = np.ones((4, 1), np.float32)
    bench.batcher.submit({"x": x}, 4, lambda entry: None)
    bench.next_event()
    assert np.shares_memory(bench.session.batches[0]["x"], x)


@pytest.mark.parametrize("buckets", [(), (0, 1), (2, 1), (1, 1), (-1,)])
def test_buckets_that_do_not_ascend_from_one_are_refused(buckets: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="buckets must be ascending"):
        BatchingOptions(buckets)


@pytest.mark.parametrize("knobs", [{"max_queue_delay": -0.1}, {"max_queue_items": 0}])
def test_knobs_out_of_range_are_refused(knobs: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="max_queue_delay must be at least 0"):
        BatchingOptions(**knobs)  # type: ignore[arg-type]
