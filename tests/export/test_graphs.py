import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray

from export.errors import ExportError
from export.graphs import Graph, submessages, trace_graphs
from training.models import Layout, MlpConfig, Vae

BATCH_SIZES = [1, 2, 3, 17, 64]
LAYOUT = Layout((1, 4, 4))
Feeds = dict[str, NDArray[Any]]


def feeds_of(graph: Graph, batch: int) -> Feeds:
    random = np.random.default_rng(batch)
    return {
        value.name: random.random((batch, *value.shape), dtype=np.float32) for value in graph.inputs
    }  # of a graph without an input in uint8


def run_in_onnxruntime(graph: Graph, feeds: Feeds) -> Feeds:
    """Outputs by name, as anybody computes them who has nothing but the file."""
    session = onnxruntime.InferenceSession(graph.content, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, feeds), strict=True))


def nodes_of(graph: Graph) -> list[onnx.NodeProto]:
    model = onnx.load_model_from_string(graph.content)
    return [message for message in submessages(model) if isinstance(message, onnx.NodeProto)]


@pytest.mark.parametrize("batch", BATCH_SIZES)
def test_the_encoder_draws_from_the_posterior_with_the_noise_that_it_is_given(
    traced: list[Graph], batch: int
) -> None:
    encoder = traced[0]
    feeds = feeds_of(encoder, batch)

    outputs = run_in_onnxruntime(encoder, feeds)

    latents = outputs["mean"] + np.exp(outputs["log_variance"] / 2) * feeds["noise"]
    np.testing.assert_allclose(outputs["latents"], latents, rtol=1e-5, atol=1e-5)
    assert {output.shape for output in outputs.values()} == {feeds["noise"].shape}
    assert outputs["mean"].std(0).min() > 0.01 or batch == 1


@pytest.mark.parametrize("batch", BATCH_SIZES)
def test_the_decoder_gives_observations_between_0_and_1(traced: list[Graph], batch: int) -> None:
    outputs = run_in_onnxruntime(traced[1], feeds_of(traced[1], batch))
    assert list(outputs) == ["observations", "observations_uint8"]
    assert outputs["observations"].shape == (batch, 1, 8, 8)
    assert 0 < outputs["observations"].min() < outputs["observations"].max() < 1


@pytest.mark.parametrize("batch", BATCH_SIZES)
def test_uint8_observations_are_the_nearest_levels(traced: list[Graph], batch: int) -> None:
    outputs = run_in_onnxruntime(traced[1], feeds_of(traced[1], batch))
    expected = np.rint(outputs["observations"] * np.float32(255))
    assert outputs["observations_uint8"].dtype == np.uint8
    assert np.abs(outputs["observations_uint8"] - expected).max() <= 1  # a tie may fall either way
    assert (outputs["observations_uint8"] == expected).mean() > 0.99


@pytest.mark.parametrize("batch", BATCH_SIZES)
def test_both_encoders_agree_on_levels(traced: list[Graph], batch: int) -> None:
    levels = np.random.default_rng(batch).integers(0, 256, (batch, 1, 8, 8), np.uint8)
    noise = feeds_of(traced[0], batch)["noise"]

    in_float = run_in_onnxruntime(
        traced[0], {"observations": (levels / 255).astype(np.float32), "noise": noise}
    )
    in_uint8 = run_in_onnxruntime(traced[2], {"observations_uint8": levels, "noise": noise})

    for name, expected in in_float.items():
        np.testing.assert_allclose(in_uint8[name], expected, rtol=1e-4, atol=1e-4)


def test_a_row_does_not_depend_on_its_batch(traced: list[Graph]) -> None:
    feeds = feeds_of(traced[0], 17)
    together = run_in_onnxruntime(traced[0], feeds)["latents"]
    alone = run_in_onnxruntime(traced[0], {name: feed[5:6] for name, feed in feeds.items()})
    np.testing.assert_allclose(together[5:6], alone["latents"], rtol=1e-5, atol=1e-5)


def test_the_graphs_have_the_documented_inputs_and_outputs(traced: list[Graph]) -> None:
    described = [
        (
            graph.file,
            [value.name for value in graph.inputs],
            [value.name for value in graph.outputs],
        )
        for graph in traced
    ]
    assert described == [
        ("encoder.onnx", ["observations", "noise"], ["latents", "mean", "log_variance"]),
        ("decoder.onnx", ["latents"], ["observations", "observations_uint8"]),
        (
            "encoder_uint8.onnx",
            ["observations_uint8", "noise"],
            ["latents", "mean", "log_variance"],
        ),
    ]


@pytest.mark.parametrize("index", [0, 1, 2])
def test_every_value_has_a_dynamic_axis_named_batch_first(traced: list[Graph], index: int) -> None:
    graph = traced[index]
    model = onnx.load_model_from_string(graph.content).graph
    found = [*model.input, *model.output]
    for value, expected in zip(found, [*graph.inputs, *graph.outputs], strict=True):
        first, *rest = value.type.tensor_type.shape.dim
        assert value.name == expected.name
        uint8 = value.name == "observations_uint8"
        expected_type = onnx.TensorProto.UINT8 if uint8 else onnx.TensorProto.FLOAT
        assert value.type.tensor_type.elem_type == expected_type
        assert first.dim_param == "batch"
        assert tuple(dim.dim_value for dim in rest) == expected.shape


@pytest.mark.parametrize("index", [0, 1, 2])
def test_no_operator_is_random_or_of_another_domain(traced: list[Graph], index: int) -> None:
    nodes = nodes_of(traced[index])
    assert {node.domain for node in nodes} <= {"", "ai.onnx"}
    operators = {node.op_type for node in nodes}
    assert operators
    assert not [name for name in operators if name.startswith(("Random", "Bernoulli", "Multi"))]


@pytest.mark.parametrize("index", [0, 1, 2])
def test_no_file_betrays_where_it_was_made(traced: list[Graph], index: int) -> None:
    content = traced[index].content
    here = [Path(__file__).parents[2], Path(sys.prefix), Path(torch.__file__).parent]
    traces = [*map(str, here), "site-packages", "stack_trace", ".py"]
    assert [trace for trace in traces if trace.encode() in content] == []


def test_a_file_says_which_model_it_is_of(graphs: dict[str, tuple[Graph, ...]]) -> None:
    model = onnx.load_model_from_string(graphs["mlp"][0].content)
    metadata = {item.key: item.value for item in model.metadata_props}
    assert metadata == {"name": "mlp", "preset": "mlp-preset", "graph": "encoder"}


class Undecided(torch.nn.Module):
    """Asks for a number while it is traced."""

    def forward(self, latents: torch.Tensor) -> torch.Tensor:
        return latents if latents.sum().item() > 0 else -latents


def test_a_model_that_cannot_be_traced_is_refused() -> None:
    plain = MlpConfig(latent_size=3, hidden_sizes=(4,)).build(LAYOUT)
    decoder = torch.nn.Sequential(Undecided(), *plain.decoder)
    model = Vae("mlp", plain.encoder, decoder, plain.likelihood, LAYOUT, 3).eval()
    with pytest.raises(ExportError, match="torch cannot trace the decoder") as raised:
        trace_graphs(model, "any", "any")
    assert "\n" not in str(raised.value)
