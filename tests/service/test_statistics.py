"""What a batcher reports, summed up."""

from service.statistics import GraphCounts, GraphStatistics


def test_batches_are_counted_by_their_size_smallest_first() -> None:
    statistics = GraphStatistics()
    statistics.batch_done(items=5, padding=3, requests=2, seconds=0.5)
    statistics.batch_done(items=1, padding=0, requests=1, seconds=0.25)
    statistics.batch_done(items=5, padding=3, requests=5, seconds=0.5)

    counts = statistics.snapshot()

    assert list(counts.batches.items()) == [(1, (1, 0.25)), (5, (2, 1.0))]
    assert counts.padding == 6


def test_every_request_of_a_batch_takes_the_batchs_time() -> None:
    statistics = GraphStatistics()
    statistics.batch_done(items=5, padding=3, requests=2, seconds=0.5)
    statistics.batch_done(items=4, padding=0, requests=0, seconds=0.5)
    counts = statistics.snapshot()
    assert (counts.requests, counts.request_seconds) == (2, 1.0)


def test_whatever_gets_no_answer_is_counted_by_its_reason() -> None:
    statistics = GraphStatistics()
    statistics.add_levels(1)
    statistics.batch_failed(3)
    statistics.entries_cancelled(2)
    statistics.entry_rejected("expired", 1)

    counts = statistics.snapshot()

    assert (counts.failed, counts.cancelled) == (3, 2)
    assert counts.rejected == {("queue_full", 1): 0, ("draining", 1): 0, ("expired", 1): 1}


def test_a_snapshot_stays_as_it_is() -> None:
    statistics = GraphStatistics()
    before = statistics.snapshot()
    statistics.batch_done(items=1, padding=1, requests=1, seconds=1.0)
    statistics.add_levels(1)
    statistics.entry_rejected("draining", 1)
    assert before == GraphCounts()
