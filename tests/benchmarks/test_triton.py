"""What Triton is told."""

from pathlib import Path

from benchmarks.models import CONV, MLP
from benchmarks.triton import TritonSettings, config_text, variants


def test_the_configuration_says_what_the_decoder_takes_and_gives() -> None:
    outputs = {"observations": "tensor(float)", "observations_uint8": "tensor(uint8)"}
    settings = TritonSettings(instances=2, threads=3, preferred_batch_sizes=(32, 64))

    text = config_text(CONV, Path("decoder.onnx"), outputs, settings)

    assert 'name: "conv.decoder"' in text
    assert "max_batch_size: 64" in text
    assert 'input [{ name: "latents", data_type: TYPE_FP32, dims: [64] }]' in text
    assert '{ name: "observations", data_type: TYPE_FP32, dims: [3, 64, 64] }' in text
    assert '{ name: "observations_uint8", data_type: TYPE_UINT8, dims: [3, 64, 64] }' in text
    assert "preferred_batch_size: [32, 64], max_queue_delay_microseconds: 0" in text
    assert "count: 2" in text
    assert 'key: "threads", value: { string_value: "3" }' in text


def test_each_model_has_its_own_largest_batch() -> None:
    settings = TritonSettings(max_batch_sizes={"mlp": 256})

    sizes = [settings.max_batch_size(model) for model in (MLP, CONV)]

    assert sizes == [256, 64]
    assert "max_batch_size: 256" in config_text(MLP, Path("decoder.onnx"), {}, settings)


def test_one_variant_has_the_threads_of_the_service() -> None:
    same, more = variants(threads=2).values()

    assert (same.threads, same.instances) == (2, 1)
    assert (more.threads, more.instances) == (2, 2)
