"""The requests, and what an answer must hold."""

from inference import inference_service_pb2 as inference
from vae.v1 import vae_service_pb2

from benchmarks.messages import decode, infer, latents_of
from benchmarks.models import CONV, MLP


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
