"""onnxruntime sessions: providers, threads, refusals, and runs of real graphs."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np
import onnxruntime as ort
import pytest

import service.server
from service.repository import Graph, read_version
from service.server import session_options
from service.session import (
    CPU,
    CUDA,
    GraphError,
    ProviderError,
    Session,
    SessionOptions,
    check_precision,
    choose_provider,
)
from service.settings import Settings

ON_CPU = SessionOptions(CPU, threads=1)


@pytest.fixture(scope="module")
def graphs(digits_repository: Path) -> Mapping[str, Graph]:
    """The graphs of the digits model."""
    return read_version(digits_repository, "digits", 1).graphs


@pytest.fixture(scope="module")
def encoder(graphs: Mapping[str, Graph]) -> Session:
    return Session(graphs["encoder"].content, graphs["encoder"].output_names, ON_CPU)


@pytest.fixture(scope="module")
def decoder(graphs: Mapping[str, Graph]) -> Session:
    return Session(graphs["decoder"].content, graphs["decoder"].output_names, ON_CPU)


def normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(1).standard_normal(shape, np.float32)


@pytest.mark.parametrize("items", [1, 2, 7, 64])
def test_a_decoder_gives_an_observation_for_every_latent(decoder: Session, items: int) -> None:
    outputs = decoder.run({"latents": normal(items, 8)})
    assert list(outputs) == ["observations"]
    assert (outputs["observations"].shape, outputs["observations"].dtype) == (
        (items, 1, 8, 8),
        np.float32,
    )


def test_an_encoder_draws_latents_from_its_posterior_with_the_given_noise(
    encoder: Session,
) -> None:
    noise = normal(5, 8)
    outputs = encoder.run({"observations": np.full((5, 1, 8, 8), 0.5, np.float32), "noise": noise})
    expected = outputs["mean"] + np.exp(outputs["log_variance"] / 2) * noise
    np.testing.assert_allclose(outputs["latents"], expected, rtol=1e-5, atol=1e-5)


def test_an_item_does_not_depend_on_its_batch(decoder: Session) -> None:
    latents = normal(16, 8)
    together = decoder.run({"latents": latents})["observations"]
    alone = decoder.run({"latents": latents[3:4]})["observations"]
    np.testing.assert_allclose(together[3:4], alone, rtol=1e-5, atol=1e-6)


def test_a_session_gives_the_outputs_that_were_asked_for(graphs: Mapping[str, Graph]) -> None:
    session = Session(graphs["encoder"].content, ["log_variance", "mean"], ON_CPU)
    inputs = {spec.name: spec.zeros(2) for spec in graphs["encoder"].inputs}
    assert list(session.run(inputs)) == ["log_variance", "mean"]


@pytest.mark.parametrize("content", [b"", b"not ONNX", bytes(1000)])
def test_a_file_that_is_not_onnx_is_refused(content: bytes) -> None:
    with pytest.raises(GraphError, match=f"^{CPU} cannot load the graph: "):
        Session(content, ["observations"], ON_CPU)


def test_a_cut_graph_is_refused(graphs: Mapping[str, Graph]) -> None:
    content = graphs["decoder"].content
    with pytest.raises(GraphError):
        Session(content[: len(content) // 2], ["observations"], ON_CPU)


def test_a_session_keeps_no_second_copy_of_its_weights(graphs: Mapping[str, Graph]) -> None:
    content = graphs["decoder"].content
    before = sys.getrefcount(content)
    session = Session(content, ["observations"], ON_CPU)
    assert sys.getrefcount(content) == before
    assert session.run({"latents": normal(1, 8)})["observations"].shape == (1, 1, 8, 8)


def test_a_session_reports_its_provider(decoder: Session) -> None:
    assert decoder.provider == CPU


def test_a_provider_that_does_not_come_up_is_refused(graphs: Mapping[str, Graph]) -> None:
    with pytest.raises(ProviderError, match=f"Other was asked for, {CPU} came up"):
        Session(graphs["decoder"].content, ["observations"], SessionOptions("Other", 1))


@pytest.mark.skipif(CUDA in ort.get_available_providers(), reason="this onnxruntime has CUDA")
@pytest.mark.filterwarnings("ignore:Specified provider 'CUDA")
def test_a_session_never_falls_back_from_cuda_to_the_cpu(graphs: Mapping[str, Graph]) -> None:
    with pytest.raises((ProviderError, GraphError), match=CUDA):
        Session(graphs["decoder"].content, ["observations"], SessionOptions(CUDA, 1))


def provide(monkeypatch: pytest.MonkeyPatch, *, cuda: bool, device: bool) -> None:
    """Lets onnxruntime and the machine look as if they had CUDA, or not."""
    providers = [CUDA, CPU] if cuda else [CPU]
    monkeypatch.setattr(ort, "get_available_providers", lambda: providers)
    monkeypatch.setattr(os.path, "exists", lambda path: device)


def test_cuda_without_its_onnxruntime_is_refused_with_the_remedy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    provide(monkeypatch, cuda=False, device=True)
    with pytest.raises(ProviderError, match="install the extra `service-gpu`"):
        choose_provider("cuda")


@pytest.mark.parametrize("cuda", [False, True])
@pytest.mark.parametrize("device", [False, True])
def test_auto_takes_cuda_where_both_onnxruntime_and_the_machine_have_it(
    monkeypatch: pytest.MonkeyPatch, cuda: bool, device: bool
) -> None:
    provide(monkeypatch, cuda=cuda, device=device)
    assert choose_provider("auto") == (CUDA if cuda and device else CPU)


def test_cpu_is_taken_even_where_cuda_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    provide(monkeypatch, cuda=True, device=True)
    assert choose_provider("cpu") == CPU


@pytest.mark.parametrize("device", [False, True])
def test_cuda_is_tried_when_asked_for(monkeypatch: pytest.MonkeyPatch, device: bool) -> None:
    provide(monkeypatch, cuda=True, device=device)
    assert choose_provider("cuda") == CUDA


@pytest.mark.parametrize(("provider", "threads"), [("cpu", 3), ("cuda", 1)])
def test_cpu_threads_are_for_the_cpu(
    monkeypatch: pytest.MonkeyPatch, provider: Literal["cpu", "cuda"], threads: int
) -> None:
    provide(monkeypatch, cuda=True, device=True)
    settings = Settings(
        repository="models", provider=provider, cpus=5, threads=3, cuda_runs="bound"
    )
    expected = SessionOptions({"cpu": CPU, "cuda": CUDA}[provider], threads, "bound", cpus=5)
    assert session_options(settings) == expected


@pytest.mark.parametrize(("cpus", "counted"), [(0, 7), (3, 3)])
def test_a_session_has_a_thread_for_each_cpu_that_is_counted_on(
    monkeypatch: pytest.MonkeyPatch, cpus: int, counted: int
) -> None:
    monkeypatch.setattr(service.server, "cpu_quota", lambda: 7)
    options = session_options(Settings(repository="models", provider="cpu", cpus=cpus))
    assert (options.cpus, options.threads) == (counted, counted)


@pytest.mark.parametrize(("precision", "provider"), [("float16", CPU), ("int8", CUDA)])
def test_a_precision_that_is_for_the_other_provider_is_refused(
    precision: str, provider: str
) -> None:
    with pytest.raises(ProviderError, match=f"precision {precision} is for"):
        check_precision(precision, provider)


@pytest.mark.parametrize(
    ("precision", "provider"),
    [("float32", CPU), ("float32", CUDA), ("float16", CUDA), ("int8", CPU)],
)
def test_a_precision_is_fine_where_it_is_meant_to_run(precision: str, provider: str) -> None:
    check_precision(precision, provider)
