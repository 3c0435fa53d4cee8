import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray

from export.errors import ExportError
from export.graphs import Format, Graph, Value, submessages, trace_graphs
from tests.families import MODELS
from training.checkpoint import Run
from training.models import Layout, MlpConfig, Vae

BATCH_SIZES = [1, 2, 3, 17, 64]
LAYOUT = Layout((1, 4, 4))
Feeds = dict[str, NDArray[Any]]


def feeds_of(graph: Graph, batch: int) -> Feeds:
    random = np.random.default_rng(batch)
    return {value.name: feed(value, batch, random) for value in graph.inputs}


def feed(value: Value, batch: int, random: np.random.Generator) -> NDArray[Any]:
    shape = (batch, *value.shape)
    if value.data_type == "float32":
        return random.random(shape, dtype=np.float32)
    return random.integers(0, 256 if value.data_type == "uint8" else value.limit, shape).astype(
        value.data_type
    )


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


PLAIN = {
    "encoder.onnx": "observations, noise -> latents, mean, log_variance",
    "decoder.onnx": "latents -> observations, observations_uint8",
    "encoder_uint8.onnx": "observations_uint8, noise -> latents, mean, log_variance",
    "scorer.onnx": "observations, noise -> rate, distortion, log_weight",
    "scorer_uint8.onnx": "observations_uint8, noise -> rate, distortion, log_weight",
}
PRIOR = {"prior.onnx": "noise -> latents"}
DOCUMENTED = dict.fromkeys(MODELS, PLAIN) | {
    "autoencoder": {file: PLAIN[file] for file in PLAIN if "scorer" not in file},
    "numbers": {
        "encoder.onnx": PLAIN["encoder.onnx"],
        "decoder.onnx": "latents -> observations",
        "scorer.onnx": PLAIN["scorer.onnx"],
    },
    "ladder": PLAIN | PRIOR,
    "vq": PLAIN | PRIOR,
    "conditional": {
        file: text.replace(" ->", ", label ->") for file, text in (PLAIN | PRIOR).items()
    },
}


def test_a_family_has_the_documented_graphs(name: str, family: list[Graph]) -> None:
    described = {
        graph.file: ", ".join(value.name for value in graph.inputs)
        + " -> "
        + ", ".join(value.name for value in graph.outputs)
        for graph in family
    }
    assert described == DOCUMENTED[name]


def test_every_value_has_a_dynamic_axis_named_batch_first(family: list[Graph]) -> None:
    types = {
        "float32": onnx.TensorProto.FLOAT,
        "uint8": onnx.TensorProto.UINT8,
        "int64": onnx.TensorProto.INT64,
    }
    for graph in family:
        model = onnx.load_model_from_string(graph.content).graph
        found = [*model.input, *model.output]
        for value, expected in zip(found, [*graph.inputs, *graph.outputs], strict=True):
            first, *rest = value.type.tensor_type.shape.dim
            assert value.name == expected.name
            assert value.type.tensor_type.elem_type == types[expected.data_type]
            assert first.dim_param == "batch"
            assert tuple(dim.dim_value for dim in rest) == expected.shape


def test_no_operator_is_random_or_of_another_domain(family: list[Graph]) -> None:
    for graph in family:
        nodes = nodes_of(graph)
        assert {node.domain for node in nodes} <= {"", "ai.onnx"}
        operators = {node.op_type for node in nodes}
        assert operators
        assert not [name for name in operators if name.startswith(("Random", "Bernoulli", "Multi"))]


def test_no_file_betrays_where_it_was_made(family: list[Graph]) -> None:
    here = [Path(__file__).parents[2], Path(sys.prefix), Path(torch.__file__).parent]
    traces = [*map(str, here), "site-packages", "stack_trace", ".py"]
    for graph in family:
        assert [trace for trace in traces if trace.encode() in graph.content] == []


def test_no_file_holds_weights_that_nothing_reads(family: list[Graph]) -> None:
    for graph in family:
        model = onnx.load_model_from_string(graph.content)
        parts = [item for item in submessages(model) if isinstance(item, onnx.GraphProto)]
        read = {name for part in parts for node in part.node for name in node.input}
        assert {tensor.name for part in parts for tensor in part.initializer} <= read


def test_a_row_of_any_family_does_not_depend_on_its_batch(family: list[Graph]) -> None:
    for graph in family:
        feeds = feeds_of(graph, 17)
        together = run_in_onnxruntime(graph, feeds)
        alone = run_in_onnxruntime(graph, {name: array[5:6] for name, array in feeds.items()})
        for name, array in together.items():
            tolerance = 1 if array.dtype == np.uint8 else 1e-3  # a tie of levels, and nats
            np.testing.assert_allclose(
                array[5:6].astype(float), alone[name].astype(float), atol=tolerance
            )


@pytest.mark.parametrize("served", ["vq", "ladder", "conditional"])
def test_a_prior_graph_draws_what_the_model_draws(
    served: str, graphs: Mapping[str, tuple[Graph, ...]], runs: Mapping[str, Run]
) -> None:
    prior = next(graph for graph in graphs[served] if graph.kind == "prior")
    feeds = feeds_of(prior, 9)
    with torch.inference_mode():
        expected = runs[served].model.sample_prior(*map(torch.from_numpy, feeds.values()))

    latents = run_in_onnxruntime(prior, feeds)["latents"]

    np.testing.assert_allclose(latents, expected.numpy(), atol=1e-5)
    assert len(np.unique(latents, axis=0)) > 1


def test_the_prior_of_codes_holds_one_row_of_its_grid(
    graphs: Mapping[str, tuple[Graph, ...]],
) -> None:
    prior = next(graph for graph in graphs["vq"] if graph.kind == "prior")
    assert [node.op_type for node in nodes_of(prior)].count("Scan") == 1
    assert prior.outputs[0] == Value("latents", (2, 2), "int64")


def test_a_scorer_gives_the_bound_of_its_model(
    graphs: Mapping[str, tuple[Graph, ...]], runs: Mapping[str, Run]
) -> None:
    scorer = next(graph for graph in graphs["ladder"] if graph.kind == "scorer")
    feeds = feeds_of(scorer, 5)
    with torch.inference_mode():
        terms = runs["ladder"].model.elbo_terms(*map(torch.from_numpy, feeds.values()))

    scores = run_in_onnxruntime(scorer, feeds)

    np.testing.assert_allclose(scores["rate"], terms.rate.sum(1).numpy(), rtol=1e-5)
    np.testing.assert_allclose(scores["distortion"], terms.distortion.numpy(), rtol=1e-5)
    np.testing.assert_allclose(scores["log_weight"], terms.log_weight.numpy(), rtol=1e-4, atol=1e-3)


def test_operator_set_and_file_format_can_be_chosen(runs: Mapping[str, Run]) -> None:
    graphs = trace_graphs(runs["numbers"].model, "any", "any", onnx_format=Format(18, 9))
    for graph in graphs:
        model = onnx.load_model_from_string(graph.content)
        assert (model.opset_import[0].version, model.ir_version) == (18, 9)
        run_in_onnxruntime(graph, feeds_of(graph, 2))


def test_a_file_says_which_model_it_is_of(graphs: Mapping[str, tuple[Graph, ...]]) -> None:
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
