"""The service on a CUDA device; `make test-gpu`."""

import logging
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

import service.bound
from benchmarks.gpu import read_gpu
from scripts.launch import ServiceProcess, running_service
from service.batching import Arrays, BatchingOptions
from service.bound import BoundRuns
from service.repository import Graph, read_version
from service.session import CPU, CUDA, Session, SessionOptions
from service.warming import Run, bound_or_plain, noise, proven, warm_up
from vae_client import VaeClient

if TYPE_CHECKING:
    from tests.families import Families

pytestmark = pytest.mark.gpu
BUCKETS = (1, 2, 4, 8, 16, 32, 64)
ON_CUDA = SessionOptions(CUDA, threads=1)
ON_CPU = SessionOptions(CPU, threads=1)
BATCHES = 4000
# One arena chunk more for every thousandth batch would be more than this.
MIB = 4.0


@pytest.fixture(scope="module")
def repository(digits_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Version 1 of "digits", in float32 and float16."""
    from export.__main__ import main  # brings torch

    folder = tmp_path_factory.mktemp("both")
    arguments = ["--repository", str(folder), "--name", "digits", "--precision", "float16"]
    assert main([str(digits_run), *arguments]) == 0
    return folder


@pytest.fixture(scope="module")
def graphs(repository: Path) -> dict[str, Graph]:
    return dict(read_version(repository, "digits", 1).graphs)


def warmed(name: str, graphs: dict[str, Graph], options: SessionOptions) -> dict[str, Run]:
    """The runs of graphs, each from a file of its own."""
    batching = BatchingOptions(BUCKETS)
    warm = [warm_up(name, {kind: graph}, options, batching, 1) for kind, graph in graphs.items()]
    return {kind: run for each in warm for kind, run in each.runs.items()}


@pytest.fixture
def warnings(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    return lambda: [
        record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING
    ]


@pytest.fixture(params=["float32", "float16"])
def on_cuda(repository: Path, request: pytest.FixtureRequest) -> Iterator[VaeClient]:
    options = ("--provider", "cuda", "--precision", str(request.param))
    with (
        running_service(repository, *options) as service,
        VaeClient(service.target) as connected,
    ):
        yield connected


def test_cuda_gives_the_answers_of_the_cpu_and_says_that_it_runs(
    on_cuda: VaeClient, client: VaeClient
) -> None:
    assert on_cuda.model("digits").execution_provider == "CUDAExecutionProvider"
    for count in (1, 64, 200):
        answer = on_cuda.sample("digits", count, seed=7).observations
        expected = client.sample("digits", count, seed=7).observations
        np.testing.assert_allclose(answer, expected, atol=1e-2)
        levels = on_cuda.sample("digits", count, seed=7, uint8=True).observations
        assert levels.dtype == np.uint8
        np.testing.assert_allclose(levels / 255, expected, atol=1e-2 + 0.5 / 255)
        mean = on_cuda.encode("digits", expected).mean
        np.testing.assert_allclose(mean, client.encode("digits", expected).mean, atol=2e-2)


def test_float32_on_cuda_is_as_close_as_its_arithmetic(
    start_service: Callable[..., AbstractContextManager[ServiceProcess]], client: VaeClient
) -> None:
    with (
        start_service("--provider", "cuda") as service,
        VaeClient(service.target) as on_cuda,
    ):
        answer = on_cuda.sample("digits", 64, seed=7).observations
    expected = client.sample("digits", 64, seed=7).observations
    np.testing.assert_allclose(answer, expected, atol=1e-3)


def test_every_graph_of_an_mlp_and_of_convolutions_is_captured(
    graphs: dict[str, Graph], families: "Families", warnings: Callable[[], list[str]]
) -> None:
    families.version("conv")
    warmed("digits", graphs, ON_CUDA)
    warmed("conv", dict(read_version(families.repository, "conv", 1).graphs), ON_CUDA)
    assert warnings() == []


@pytest.mark.timeout(600)  # it exports all of them
def test_every_family_gives_on_cuda_what_it_gives_on_the_cpu(families: "Families") -> None:
    from tests.families import MODELS  # brings torch

    for family in MODELS:
        families.version(family)
        graphs = dict(read_version(families.repository, family, 1).graphs)
        runs = warmed(family, graphs, ON_CUDA)
        for kind, graph in graphs.items():
            inputs = noise(graph, 4, seed=2)
            on_cpu = Session(graph.content, graph.output_names, ON_CPU).run(inputs)
            for name, array in runs[kind](inputs).items():
                where = f"{name} of {family}.{kind}"
                near = 1 if array.dtype == np.uint8 else 1e-2  # levels that rounding parts
                np.testing.assert_allclose(
                    array.astype(np.float64),
                    on_cpu[name].astype(np.float64),
                    1e-2,
                    near,
                    err_msg=where,
                )


def test_bound_runs_on_the_device_do_what_plain_runs_do_without_graphs_too(
    graphs: dict[str, Graph], warnings: Callable[[], list[str]]
) -> None:
    decoder = graphs["decoder"]
    plain = Session(decoder.content, decoder.output_names, ON_CUDA).run

    def load(capture: bool) -> BoundRuns:
        assert not capture
        return Session(decoder.content, decoder.output_names, ON_CUDA).bound()

    runs = bound_or_plain("digits", {"decoder": plain}, decoder, load, BUCKETS, capture=False)
    assert runs["decoder"] != plain
    assert warnings() == []


def test_a_load_that_captures_harms_no_batch_that_runs_meanwhile(
    graphs: dict[str, Graph], warnings: Callable[[], list[str]]
) -> None:
    served = warmed("digits", graphs, ON_CUDA)["decoder"]
    batches = [noise(graphs["decoder"], items) for items in BUCKETS]
    expected = [served(inputs)["observations"] for inputs in batches]
    ended = threading.Event()
    wrong: list[object] = []

    def serve() -> None:
        while not ended.is_set():
            for inputs, answer in zip(batches, expected, strict=True):
                try:
                    np.testing.assert_allclose(served(inputs)["observations"], answer, atol=1e-5)
                except Exception as error:  # noqa: BLE001 - the test's thread raises it
                    wrong.append(error)
                    return

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        for _ in range(5):
            warmed("digits", graphs, ON_CUDA)
    finally:
        ended.set()
        thread.join()
    assert wrong == []
    assert warnings() == []


def test_memory_of_the_device_does_not_grow_while_encoder_and_decoder_alternate(
    graphs: dict[str, Graph],
) -> None:
    kinds = ("encoder", "decoder")
    runs = warmed("digits", {kind: graphs[kind] for kind in kinds}, ON_CUDA)
    given: dict[tuple[str, int], Arrays] = {
        (kind, items): noise(graphs[kind], items) for kind in kinds for items in BUCKETS
    }

    def alternate(batches: int) -> float:
        for number in range(batches):
            kind, items = kinds[number % 2], BUCKETS[number % len(BUCKETS)]
            runs[kind](given[kind, items])
        return read_gpu().used_mib

    before = alternate(BATCHES // 10)
    assert alternate(BATCHES) - before < MIB


def test_answers_of_captured_graphs_outlive_the_next_batches(graphs: dict[str, Graph]) -> None:
    decoder = graphs["decoder"]
    on_cpu = Session(decoder.content, decoder.output_names, ON_CPU).run
    plain = Session(decoder.content, decoder.output_names, ON_CUDA).run
    bound = Session(decoder.content, decoder.output_names, ON_CUDA, capture=True).bound()
    run = proven(bound, plain, decoder, BUCKETS)
    answers = [run(noise(decoder, 8, seed)) for seed in range(20)]
    for seed, answer in enumerate(answers):
        expected = on_cpu(noise(decoder, 8, seed))["observations"]
        np.testing.assert_allclose(answer["observations"], expected, atol=1e-3)


def test_metrics_tell_the_memory_of_the_device(
    start_service: Callable[..., AbstractContextManager[ServiceProcess]],
) -> None:
    with start_service("--provider", "cuda") as service:
        told = dict(re.findall(r'vae_gpu_memory_(\w+)_bytes\{device="0"\} (\S+)', service.scrape()))
        seen = read_gpu()
    assert float(told["total"]) == pytest.approx(seen.total_mib * 2**20, rel=0.05)
    assert 0 < float(told["used"]) < float(told["total"])


def test_large_answers_of_captured_graphs_lie_in_pinned_memory(
    graphs: dict[str, Graph], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service.bound, "_PINNED_BYTES", 1)
    decoder = graphs["decoder"]
    run = warmed("digits", {"decoder": decoder}, ON_CUDA)["decoder"]
    inputs = noise(decoder, 8)
    first = run(inputs)["observations"]
    address, other = first.ctypes.data, run(inputs)["observations"]
    assert not np.shares_memory(first, other)
    np.testing.assert_array_equal(first, other)
    del first
    assert run(inputs)["observations"].ctypes.data == address  # used again


def test_processes_on_one_device_answer_alike(repository: Path, client: VaeClient) -> None:
    expected = client.sample("digits", 8, seed=7).observations
    with running_service(repository, "--provider", "cuda", "--processes", "2") as service:
        service.wait_for_all(2)
        for _ in range(16):  # connections, which the kernel gives to either
            with VaeClient(service.target) as connected:
                answer = connected.sample("digits", 8, seed=7).observations
                np.testing.assert_allclose(answer, expected, atol=1e-3)
