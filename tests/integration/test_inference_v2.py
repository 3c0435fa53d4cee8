"""The Open Inference Protocol over a real socket, with the project's own stubs."""

from typing import Any

import grpc
import numpy as np
import pytest
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)
from inference import inference_service_pb2 as pb
from inference import model_config_pb2 as config_pb
from inference.inference_service_pb2_grpc import GRPCInferenceServiceStub

from scripts.launch import ServiceProcess
from tests.integration.inference_requests import (
    DECODER,
    ENCODER,
    Parameter,
    arrays_of,
    latents,
    observations,
    request,
)
from vae_client import VaeClient

SERVICE = "inference.GRPCInferenceService"


def test_the_server_lives_is_ready_and_says_what_it_is(stub: GRPCInferenceServiceStub) -> None:
    assert stub.ServerLive(pb.ServerLiveRequest()).live
    assert stub.ServerReady(pb.ServerReadyRequest()).ready
    metadata = stub.ServerMetadata(pb.ServerMetadataRequest())
    assert metadata.name == "vae-serving"
    assert metadata.version
    assert metadata.extensions == ["model_configuration", "parameters", "statistics"]


@pytest.mark.parametrize("version", ["", "1"])
def test_each_graph_is_a_model_that_is_ready(stub: GRPCInferenceServiceStub, version: str) -> None:
    for name in (DECODER, ENCODER):
        assert stub.ModelReady(pb.ModelReadyRequest(name=name, version=version)).ready


def test_metadata_names_the_tensors_of_the_graph(stub: GRPCInferenceServiceStub) -> None:
    metadata = stub.ModelMetadata(pb.ModelMetadataRequest(name=ENCODER))

    assert (metadata.name, metadata.versions, metadata.platform) == (ENCODER, ["1"], "onnx_onnxv1")
    assert [(each.name, each.datatype, list(each.shape)) for each in metadata.inputs] == [
        ("observations", "FP32", [-1, 1, 8, 8]),
        ("noise", "FP32", [-1, 8]),
    ]
    assert [(each.name, list(each.shape)) for each in metadata.outputs] == [
        ("latents", [-1, 8]),
        ("mean", [-1, 8]),
        ("log_variance", [-1, 8]),
    ]


def test_the_configuration_is_without_the_item_axis(stub: GRPCInferenceServiceStub) -> None:
    config = stub.ModelConfig(pb.ModelConfigRequest(name=ENCODER)).config

    assert (config.name, config.platform, config.backend, config.max_batch_size) == (
        ENCODER,
        "onnxruntime_onnx",
        "onnxruntime",
        64,
    )
    assert [(each.name, list(each.dims), each.optional) for each in config.input] == [
        ("observations", [1, 8, 8], False),
        ("noise", [8], True),
    ]
    assert {each.data_type for each in config.output} == {config_pb.TYPE_FP32}
    assert config.HasField("dynamic_batching")


@pytest.mark.parametrize("typed", [False, True])
def test_the_decoder_gives_what_decode_of_vae_v1_gives(
    stub: GRPCInferenceServiceStub, client: VaeClient, typed: bool
) -> None:
    answer = stub.ModelInfer(
        request(DECODER, typed=typed, arrays={"latents": latents(3)}, id="some id")
    )

    assert (answer.model_name, answer.model_version, answer.id) == (DECODER, "1", "some id")
    assert [output.datatype for output in answer.outputs] == ["FP32"]
    expected = client.decode("digits", latents(3)).observations
    np.testing.assert_allclose(arrays_of(answer)["observations"], expected, atol=1e-6)


@pytest.mark.parametrize("typed", [False, True])
def test_the_encoder_draws_with_the_noise_that_it_is_given(
    stub: GRPCInferenceServiceStub, client: VaeClient, typed: bool
) -> None:
    arrays = {"noise": latents(3), "observations": observations(3)}  # in any order

    answer = stub.ModelInfer(request(ENCODER, typed=typed, arrays=arrays))

    outputs, posterior = arrays_of(answer), client.encode("digits", observations(3))
    assert list(outputs) == ["latents", "mean", "log_variance"]
    np.testing.assert_allclose(outputs["mean"], posterior.mean, atol=1e-5)
    np.testing.assert_allclose(outputs["log_variance"], posterior.log_variance, atol=1e-5)
    drawn = posterior.mean + np.exp(0.5 * posterior.log_variance) * latents(3)
    np.testing.assert_allclose(outputs["latents"], drawn, atol=1e-5)
    assert not answer.parameters


@pytest.mark.parametrize("seed", [Parameter(int64_param=7), Parameter(uint64_param=7)])
def test_noise_that_is_left_out_is_drawn_from_the_seed_as_in_vae_v1(
    stub: GRPCInferenceServiceStub, client: VaeClient, seed: pb.InferParameter
) -> None:
    answer = stub.ModelInfer(
        request(ENCODER, arrays={"observations": observations(3)}, parameters={"seed": seed})
    )

    expected = client.encode("digits", observations(3), include_latents=True, seed=7).latents
    np.testing.assert_allclose(arrays_of(answer)["latents"], expected, atol=1e-5)
    assert answer.parameters["seed"].int64_param == 7


def test_a_picked_seed_is_reported_and_can_be_used_again(stub: GRPCInferenceServiceStub) -> None:
    first = stub.ModelInfer(request(ENCODER, arrays={"observations": observations()}))
    message = request(ENCODER, arrays={"observations": observations()})
    other = stub.ModelInfer(message)
    message.parameters["seed"].CopyFrom(first.parameters["seed"])
    again = stub.ModelInfer(message)

    drawn = arrays_of(first)["latents"]
    np.testing.assert_allclose(arrays_of(again)["latents"], drawn, atol=1e-6)
    assert not np.allclose(arrays_of(other)["latents"], drawn)


def test_only_the_outputs_that_are_asked_for_come_in_their_order(
    stub: GRPCInferenceServiceStub,
) -> None:
    wanted = [{"name": "log_variance"}, {"name": "mean"}]
    every = stub.ModelInfer(request(ENCODER, arrays={"observations": observations()}))

    answer = stub.ModelInfer(
        request(ENCODER, arrays={"observations": observations()}, outputs=wanted)
    )

    assert [output.name for output in answer.outputs] == ["log_variance", "mean"]
    assert not answer.parameters  # nothing was drawn
    for name, array in arrays_of(answer).items():
        np.testing.assert_allclose(array, arrays_of(every)[name], atol=1e-6)


def test_a_request_larger_than_any_batch_is_answered_in_order(
    stub: GRPCInferenceServiceStub, client: VaeClient
) -> None:
    answer = stub.ModelInfer(request(DECODER, arrays={"latents": latents(200)}))

    expected = client.decode("digits", latents(200)).observations
    np.testing.assert_allclose(arrays_of(answer)["observations"], expected, atol=1e-5)


def test_concurrent_callers_get_their_own_answers(
    stub: GRPCInferenceServiceStub, client: VaeClient
) -> None:
    rows = latents(64)
    expected = client.decode("digits", rows).observations

    calls = [
        stub.ModelInfer.future(
            request(DECODER, arrays={"latents": rows[[index]]}, id=str(index)), timeout=10
        )
        for index in range(64)
    ]

    for index, call in enumerate(calls):
        answer = call.result()
        assert answer.id == str(index)
        np.testing.assert_allclose(arrays_of(answer)["observations"][0], expected[index], atol=1e-5)


def test_statistics_count_requests_items_and_batches_of_both_protocols(
    stub: GRPCInferenceServiceStub, client: VaeClient
) -> None:
    def statistics() -> Any:
        [model] = stub.ModelStatistics(pb.ModelStatisticsRequest(name=DECODER)).model_stats
        return model

    before = statistics()
    stub.ModelInfer(request(DECODER, arrays={"latents": latents(3)}))
    client.decode("digits", latents(100))
    after = statistics()

    assert (after.name, after.version) == (DECODER, "1")
    assert after.inference_count - before.inference_count == 103
    assert after.execution_count - before.execution_count == 3
    assert after.last_inference > before.last_inference
    was, now = before.inference_stats, after.inference_stats
    assert now.success.count - was.success.count == 2
    assert now.queue.count - was.queue.count == 2
    assert now.success.ns > was.success.ns
    assert now.compute_infer.ns > was.compute_infer.ns
    batches = {each.batch_size: each.compute_infer.count for each in after.batch_stats}
    assert {3, 64, 36} <= set(batches)
    assert sum(batches.values()) == after.execution_count


def test_statistics_without_a_name_are_those_of_all_graphs(stub: GRPCInferenceServiceStub) -> None:
    every = stub.ModelStatistics(pb.ModelStatisticsRequest()).model_stats
    assert {each.name for each in every} == {
        DECODER,
        ENCODER,
        f"{DECODER}_uint8",
        f"{ENCODER}_uint8",
        "digits.scorer",
        "digits.scorer_uint8",
    }


def test_reflection_and_metrics_know_the_protocol(
    stub: GRPCInferenceServiceStub, channel: grpc.Channel, service: ServiceProcess
) -> None:
    stub.ModelInfer(request(DECODER, arrays={"latents": latents()}))

    database = ProtoReflectionDescriptorDatabase(channel)
    described = DescriptorPool(database).FindServiceByName(SERVICE)
    assert SERVICE in database.get_services()
    assert {"ModelInfer", "ModelConfig"} <= {method.name for method in described.methods}
    assert f'vae_requests_total{{code="OK",method="{SERVICE}/ModelInfer"}}' in service.scrape()
