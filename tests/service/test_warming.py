"""How graphs run: bound where that has proven to give what plain runs give, and plain else."""

import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import service.warming
from service.batching import Arrays, BatchingOptions
from service.bound import BoundRuns
from service.loading import load_model
from service.metrics import Metrics
from service.repository import Graph, read_version
from service.session import CPU, CUDA, GraphError, Session, SessionOptions
from service.warming import Disagreement, Run, bound_or_plain, noise, proven, warm_up
from tests.service.fakes import Idle

BUCKETS = (1, 2, 4)
SECONDS = 10.0
OPTIONS = SessionOptions(CPU, threads=1)


@pytest.fixture(scope="module")
def graphs(digits_repository: Path) -> Mapping[str, Graph]:
    return read_version(digits_repository, "digits", 1).graphs


@pytest.fixture(scope="module")
def decoder(graphs: Mapping[str, Graph]) -> Graph:
    return graphs["decoder"]


@pytest.fixture(scope="module")
def plain(decoder: Graph) -> Run:
    return Session(decoder.content, decoder.output_names, OPTIONS).run


def loads(decoder: Graph) -> BoundRuns:
    return Session(decoder.content, decoder.output_names, OPTIONS).bound()


class Lying:
    """Bound runs that give something else than what they should."""

    def __init__(self, answer: Callable[[Arrays, Arrays], Arrays]) -> None:
        """answer: what they give for a batch, from the first example's outputs of its size."""
        self._answer = answer

    def bind(self, examples: list[tuple[Arrays, Arrays]]) -> Run:
        by_size = {len(inputs["latents"]): outputs for inputs, outputs in examples}
        return lambda inputs: self._answer(inputs, by_size[len(inputs["latents"])])


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def test_graphs_are_captured_where_that_works(
    decoder: Graph, plain: Run, caplog: pytest.LogCaptureFixture
) -> None:
    captures: list[bool] = []

    def load(capture: bool) -> BoundRuns:
        captures.append(capture)
        return loads(decoder)

    run = bound_or_plain("digits.decoder", {"decoder": plain}, decoder, load, BUCKETS)["decoder"]
    inputs = noise(decoder, 4, seed=2)
    np.testing.assert_array_equal(run(inputs)["observations"], plain(inputs)["observations"])
    assert captures == [True]
    assert run != plain
    assert warnings(caplog) == []


@pytest.mark.parametrize(("capture", "missing"), [(True, "CUDA graphs"), (False, "bound buffers")])
def test_runs_stay_plain_where_graphs_cannot_be_captured_or_nothing_be_bound(
    decoder: Graph, plain: Run, caplog: pytest.LogCaptureFixture, capture: bool, missing: str
) -> None:
    tried: list[bool] = []

    def load(capture: bool) -> BoundRuns:
        tried.append(capture)
        raise RuntimeError("no memory")

    runs = bound_or_plain(
        "digits.decoder", {"decoder": plain}, decoder, load, BUCKETS, capture=capture
    )
    assert runs == {"decoder": plain}
    assert tried == [capture]
    assert warnings(caplog) == [f"digits.decoder runs without {missing}: no memory"]


def test_nothing_is_captured_where_nobody_wants_it(
    decoder: Graph, plain: Run, caplog: pytest.LogCaptureFixture
) -> None:
    captures: list[bool] = []

    def load(capture: bool) -> BoundRuns:
        captures.append(capture)
        return loads(decoder)

    bound_or_plain("digits.decoder", {"decoder": plain}, decoder, load, BUCKETS, capture=False)
    assert captures == [False]
    assert warnings(caplog) == []


def test_all_graphs_of_a_file_run_the_same_way(
    decoder: Graph, plain: Run, caplog: pytest.LogCaptureFixture
) -> None:
    def wrong(inputs: Arrays) -> Arrays:
        return {"observations": plain(inputs)["observations"] + 0.01}

    runs = {"decoder": plain, "decoder_uint8": wrong}
    kept = bound_or_plain("digits.decoder", runs, decoder, lambda _: loads(decoder), BUCKETS)
    assert kept == runs
    assert [text.rpartition(": ")[2] for text in warnings(caplog)] == [
        "observations of 1 items differ from those of a plain run"
    ]


@pytest.mark.parametrize(
    "answer",
    [
        lambda inputs, first: first,  # a graph that reads other buffers than the batch is in
        lambda inputs, first: {"observations": first["observations"].astype(np.float16)},
        lambda inputs, first: {"observations": first["observations"][:, 0]},
        lambda inputs, first: {"observations": np.full_like(first["observations"], np.nan)},
    ],
)
def test_a_bound_run_that_gives_something_else_is_found_out(
    decoder: Graph, plain: Run, answer: Callable[[Arrays, Arrays], Arrays]
) -> None:
    with pytest.raises(Disagreement, match=r"observations of . items differ from those"):
        proven(Lying(answer), plain, decoder, BUCKETS)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("dtype", "distance", "close"),
    [
        (np.float32, 9e-4, True),
        (np.float32, 2e-3, False),
        (np.float16, 9e-4, True),
        (np.uint8, 1, True),
        (np.uint8, 2, False),
        (np.int64, 0, True),
        (np.int64, 1, False),
    ],
)
def test_floats_may_differ_a_little_levels_by_one_and_codes_not_at_all(
    decoder: Graph, dtype: type, distance: float, close: bool
) -> None:
    def plain(inputs: Arrays) -> Arrays:
        return {"observations": np.zeros(len(inputs["latents"]), dtype)}

    def off(inputs: Arrays, _: Arrays) -> Arrays:
        return {"observations": np.full(len(inputs["latents"]), distance, dtype)}

    if close:
        proven(Lying(off), plain, decoder, BUCKETS)  # type: ignore[arg-type]
    else:
        with pytest.raises(Disagreement):
            proven(Lying(off), plain, decoder, BUCKETS)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("cuda", "options"), [(CUDA, OPTIONS), (CPU, replace(OPTIONS, cuda_runs="plain"))]
)
def test_on_the_cpu_or_if_somebody_says_so_runs_are_plain(
    graphs: Mapping[str, Graph], monkeypatch: pytest.MonkeyPatch, cuda: str, options: SessionOptions
) -> None:
    monkeypatch.setattr(service.warming, "CUDA", cuda)  # the provider that is bound
    pair = {kind: graphs[kind] for kind in ("decoder", "decoder_uint8")}
    warm = warm_up("digits", pair, options, BatchingOptions(BUCKETS), 1)
    owners = {getattr(run, "__self__", None).__class__ for run in warm.runs.values()}
    assert owners == {Session}
    assert [list(run(noise(pair["decoder"], 2))) for run in warm.runs.values()] == [
        ["observations"],
        ["observations_uint8"],
    ]


def strict(*arguments: Any, cpu_nodes: bool = False, **named: Any) -> Session:
    """Refuses what CUDA would leave to the CPU, as onnxruntime does unless it is told not to."""
    if not cpu_nodes:
        raise GraphError("nodes are assigned to the CPU")
    return Session(*arguments, **named)


def test_a_graph_with_nodes_that_cuda_leaves_to_the_cpu_runs_plain_and_says_so(
    decoder: Graph, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(service.warming, "CUDA", CPU)  # the provider that is strict
    monkeypatch.setattr(service.warming, "Session", strict)
    warm = warm_up("vq", {"decoder": decoder}, OPTIONS, BatchingOptions(BUCKETS), 1)
    inputs = noise(decoder, 2)
    expected = Session(decoder.content, decoder.output_names, OPTIONS).run(inputs)
    np.testing.assert_array_equal(
        warm.runs["decoder"](inputs)["observations"], expected["observations"]
    )
    assert warnings(caplog) == [
        "vq.decoder runs in part on the CPU, and without CUDA graphs: nodes are assigned to the CPU"
    ]


def test_a_graph_that_is_refused_on_the_cpu_is_refused(
    decoder: Graph, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service.warming, "Session", strict)
    with pytest.raises(GraphError, match="assigned"):
        warm_up("vq", {"decoder": decoder}, OPTIONS, BatchingOptions(BUCKETS), 1)


def test_a_model_runs_bound_with_every_graph_and_bucket_that_it_has(
    digits_repository: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(service.warming, "CUDA", CPU)  # the provider that is bound
    version = read_version(digits_repository, "digits", 1)
    model = load_model(version, OPTIONS, BatchingOptions(), Metrics(), Idle())
    try:
        for kind, batcher in model.batchers.items():
            graph = version.graphs[kind]
            plain = Session(graph.content, graph.output_names, OPTIONS).run
            for items in (1, 3, 64):
                inputs = noise(graph, items, seed=2)
                done = threading.Event()
                entry = batcher.submit(inputs, items, lambda _, done=done: done.set())
                assert done.wait(SECONDS)
                assert entry.outputs is not None
                for name, array in plain(inputs).items():
                    np.testing.assert_allclose(entry.outputs[name], array, rtol=1e-5, atol=1e-5)
    finally:
        for batcher in model.batchers.values():
            batcher.stop()
    assert warnings(caplog) == []
