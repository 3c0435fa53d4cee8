"""Models that do not wait for each other's work."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import grpc
import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families
from vae.v1.tensor_pb2 import DATA_TYPE_FLOAT32, Tensor
from vae.v1.vae_service_pb2 import DecodeRequest, SampleRequest
from vae.v1.vae_service_pb2_grpc import VaeServiceStub

from scripts.launch import ServiceProcess
from tests.integration.publications import publish
from tests.integration.waiting import wait_until

StartService = Callable[..., AbstractContextManager[ServiceProcess]]
FLOOD, ITEMS = 30, 4096


def tensor(array: np.ndarray) -> Tensor:
    return Tensor(data_type=DATA_TYPE_FLOAT32, shape=array.shape, data=array.tobytes())


def queued(service: ServiceProcess, model: str) -> float:
    families = text_string_to_metric_families(service.scrape())
    samples = next(each for each in families if each.name == "vae_queue_items").samples
    return sum(each.value for each in samples if each.labels["model"] == model)


@pytest.fixture
def models(digits_repository: Path, tmp_path: Path) -> Path:
    """A repository with the models "digits" and "other"."""
    for name in ("digits", "other"):
        publish(digits_repository, tmp_path, 1, name=name)
    return tmp_path


@pytest.mark.parametrize("delay", ["0", "1"], ids=["on the reading thread", "on threads"])
def test_a_model_does_not_wait_for_the_queue_of_another(
    start_service: StartService, models: Path, delay: str
) -> None:
    queue = ("--max-queue-items", str(2 * FLOOD * ITEMS), "--max-queue-delay-ms", delay)
    with (
        start_service("--repository", str(models), *queue) as service,
        grpc.insecure_channel(service.target) as flooding,
        grpc.insecure_channel(service.target, [("grpc.use_local_subchannel_pool", 1)]) as channel,
    ):
        service.wait_for("ready")
        many = DecodeRequest(model="models/digits", latents=tensor(np.zeros((ITEMS, 8), "<f4")))
        flood: list[grpc.Future] = []

        def flooded() -> bool:
            if all(call.done() for call in flood):
                flood.extend(
                    VaeServiceStub(flooding).Decode.future(many, timeout=60) for _ in range(FLOOD)
                )
            return queued(service, "digits") > 0

        wait_until(flooded)
        one = SampleRequest(model="models/other", sample_count=1, seed=1)
        answer = VaeServiceStub(channel).Sample(one, timeout=60)
        unanswered = sum(not call.done() for call in flood)
        for call in flood:
            assert len(call.result().observations.data) == ITEMS * 256

    assert answer.model == "models/other/versions/1"
    assert unanswered > 0
