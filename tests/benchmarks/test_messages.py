"""The requests, and what an answer must hold."""

from collections.abc import Callable
from pathlib import Path

import pytest
from inference import inference_service_pb2 as inference
from vae.v1 import vae_service_pb2

from benchmarks.errors import BenchmarkError
from benchmarks.http2 import Method
from benchmarks.messages import check_answer, decode, expected_observations, infer, latents_of
from benchmarks.models import CONV, MLP, BenchModel, build_repository, decoder_file
from benchmarks.servers import running


def test_both_protocols_ask_for_the_same_latents() -> None:
    latents = latents_of(MLP, 64)
    ours = vae_service_pb2.DecodeRequest.FromString(decode(MLP, 64).request)
    theirs = inference.ModelInferRequest.FromString(infer(MLP, 64).request)

    assert ours.latents.data == theirs.raw_input_contents[0] == latents.tobytes()
    assert list(ours.latents.shape) == list(theirs.inputs[0].shape) == [64, 20]
    assert (ours.model, theirs.model_name) == ("models/mlp", "mlp.decoder")


def test_an_answer_has_the_bytes_of_the_observations_and_little_else() -> None:
    least, most = infer(CONV, 2).answer_bytes

    assert least == 2 * 3 * 64 * 64 * 4
    assert most < least + 1000
    assert decode(CONV, 2).answer_bytes == (least, most)


@pytest.mark.parametrize("make", [decode, infer])
def test_the_service_s_answers_are_compared_with_onnxruntime_s(
    make: Callable[[BenchModel, int], Method], tmp_path: Path
) -> None:
    build_repository(tmp_path, [MLP])
    graph = decoder_file(tmp_path, MLP).read_bytes()
    expected = expected_observations(graph, latents_of(MLP, 3))
    with running(tmp_path, []) as server:
        check_answer(server.target, make(MLP, 3), expected)
        with pytest.raises(BenchmarkError, match=r"off by 0\.5"):
            check_answer(server.target, make(MLP, 3), expected + 0.5)
