"""Names that lead elsewhere, and clients that want to fill memory, metrics or logs."""

from typing import Any

import grpc
import pytest
from inference import inference_service_pb2 as oip
from inference.inference_service_pb2_grpc import GRPCInferenceServiceStub
from vae.v1 import model_service_pb2, model_service_pb2_grpc, vae_service_pb2_grpc
from vae.v1.vae_service_pb2 import DecodeRequest, DecodeStreamRequest, SampleRequest

from scripts.launch import ServiceProcess
from service.repository import NAME
from vae_client import VaeClient
from vae_client.errors import VaeError, error_of

NAMES = {
    "parent": "../digits",
    "parent behind": "digits/../digits",
    "dot": "./digits",
    "absolute": "/etc/passwd",
    "encoded": "%2e%2e%2fdigits",
    "encoded twice": "%252e%252e%252fdigits",
    "encoded letter": "%64igits",
    "backslash": "..\\digits",
    "null": "digits\0",
    "newline": "digits\n",
    "space": " digits",
    "case": "Digits",
    "full width": "\N{FULLWIDTH LATIN SMALL LETTER D}igits",
    "cyrillic": "d\N{CYRILLIC SMALL LETTER BYELORUSSIAN-UKRAINIAN I}gits",
    "combining": "digits\u0301",
    "zero width": "digits\u200b",
    "other dots": "\N{ONE DOT LEADER}\N{ONE DOT LEADER}/digits",
    "url": "file:///etc/passwd",
    "long": "a" * 2**20,
    "deep": "../" * 10_000,
    "version": "digits/versions/../versions/1",
    "other one": "digits/versions/1 ",
    "padded one": "digits/versions/01",
    "arabic one": "digits/versions/\N{ARABIC-INDIC DIGIT ONE}",
}
# The connection of who sends far too much ends.
REFUSED = {grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNAVAILABLE}
UNKNOWN = {grpc.StatusCode.NOT_FOUND, grpc.StatusCode.INVALID_ARGUMENT}
INTERNAL = ("Traceback", ".py", "onnxruntime", "/tmp", "No such file", "passwd")  # noqa: S108


def refusal(call: Any, request: Any) -> VaeError:
    with pytest.raises(grpc.RpcError) as caught:
        list(call(request, timeout=10))  # the answers of a stream, if it is one
    return error_of(caught.value)


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES.keys())
def test_a_name_that_is_not_served_is_unknown_however_it_is_written(
    channel: grpc.Channel, name: str
) -> None:
    vae = vae_service_pb2_grpc.VaeServiceStub(channel)
    models = model_service_pb2_grpc.ModelServiceStub(channel)
    v2 = GRPCInferenceServiceStub(channel)
    for prefix in ("models/", ""):
        text = prefix + name
        for error in (
            refusal(vae.Sample, SampleRequest(model=text, sample_count=1)),
            refusal(vae.Decode, DecodeRequest(model=text)),
            refusal(models.GetModel, model_service_pb2.GetModelRequest(name=text)),
            refusal(v2.ModelInfer, oip.ModelInferRequest(model_name=f"{text}.decoder")),
            refusal(v2.ModelMetadata, oip.ModelMetadataRequest(name=f"{text}.decoder")),
            refusal(v2.ModelReady, oip.ModelReadyRequest(name=f"{text}.decoder")),
            refusal(v2.ModelConfig, oip.ModelConfigRequest(name="digits.decoder", version=text)),
            refusal(v2.ModelStatistics, oip.ModelStatisticsRequest(name=f"{text}.decoder")),
        ):
            assert error.code in UNKNOWN
            assert name not in str(error) or NAME.fullmatch(name)
            assert len(str(error)) < 500
            assert not any(word in str(error) for word in INTERNAL)


def test_a_name_that_is_no_unicode_is_refused(channel: grpc.Channel) -> None:
    method = channel.unary_unary("/vae.v1.VaeService/Sample")
    with pytest.raises(grpc.RpcError) as caught:
        method(b"\x0a\x03\xed\xa0\x80", timeout=10)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def series(service: ServiceProcess) -> set[str]:
    lines = service.scrape().splitlines()
    return {line.rpartition(" ")[0] for line in lines if line.startswith("vae_")}


def test_names_methods_and_metadata_of_clients_make_no_time_series(
    service: ServiceProcess, channel: grpc.Channel
) -> None:
    vae = vae_service_pb2_grpc.VaeServiceStub(channel)
    v2 = GRPCInferenceServiceStub(channel)

    def attack(number: int) -> None:
        text = f"attack{number}"
        refusal(vae.Sample, SampleRequest(model=f"models/{text}", sample_count=1))
        refusal(v2.ModelInfer, oip.ModelInferRequest(model_name=text, model_version=text))
        refusal(vae.DecodeStream, iter([DecodeStreamRequest(request={"model": text})]))
        for path in (f"/vae.v1.VaeService/{text}", f"/{text}/Sample", f"/{text}"):
            assert refusal(channel.unary_unary(path), b"").code is grpc.StatusCode.UNIMPLEMENTED
        metadata = (("x-request-id", text), (text, text), ("user-agent", text))
        with pytest.raises(grpc.RpcError):
            vae.Sample(SampleRequest(), metadata=metadata, timeout=10)

    attack(0)
    before = series(service)
    for number in range(1, 50):
        attack(number)
    after = series(service)

    assert after == before
    assert not any("attack" in name for name in after)


def test_a_method_path_of_many_bytes_is_refused(channel: grpc.Channel) -> None:
    error = refusal(channel.unary_unary("/" + "a" * 8000), b"")
    assert error.code is grpc.StatusCode.UNIMPLEMENTED
    assert "aaaa" not in str(error)


@pytest.mark.parametrize(
    "metadata",
    [
        [("x-long", "a" * 2**16)],
        [("x-long", "a" * 2**20)],
        [(f"x-{number}", "a" * 600) for number in range(100)],
        [(f"x-{number}", "a") for number in range(10_000)],
    ],
    ids=["64 KiB", "1 MiB", "100 of 600 bytes", "10000"],
)
def test_metadata_without_measure_is_refused_and_harms_nobody_else(
    service: ServiceProcess, client: VaeClient, metadata: list[tuple[str, str]]
) -> None:
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0)]
    with grpc.insecure_channel(service.target, options) as channel:
        request = SampleRequest(model="models/digits", sample_count=1)
        with pytest.raises(grpc.RpcError) as caught:
            vae_service_pb2_grpc.VaeServiceStub(channel).Sample(
                request, metadata=metadata, timeout=10
            )
    assert caught.value.code() in REFUSED
    assert client.sample("digits", 1).observations.shape == (1, 1, 8, 8)
