"""A wall clock that is set while the service runs: nothing is measured by it."""

import os
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest
from inference import inference_service_pb2 as pb
from inference.inference_service_pb2_grpc import GRPCInferenceServiceStub
from prometheus_client.parser import text_string_to_metric_families
from vae.v1.vae_service_pb2 import SampleRequest
from vae.v1.vae_service_pb2_grpc import VaeServiceStub

from scripts.launch import running_service
from tests.integration.waiting import wait_until

DAY = 86_400.0
MINUTE = 60.0
# Python runs it at its start. The service's clock is that of the machine and what the file says.
SITE = """
import os, time
real = time.time, time.time_ns
def ahead():
    with open(os.environ["SECONDS_AHEAD"]) as file:
        return float(file.read())
time.time = lambda: real[0]() + ahead()
time.time_ns = lambda: real[1]() + int(ahead() * 1e9)
"""


@pytest.fixture
def set_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Sets the wall clock of services, to so many seconds from now."""
    file = tmp_path / "ahead"
    (tmp_path / "sitecustomize.py").write_text(SITE)
    monkeypatch.setenv("SECONDS_AHEAD", str(file))
    paths = (str(tmp_path), os.environ.get("PYTHONPATH", ""))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, paths)))

    def set_clock(ahead: float) -> None:
        beside = tmp_path / "new"
        beside.write_text(str(ahead))
        beside.replace(file)

    set_clock(0)
    return set_clock


def test_deadlines_and_durations_do_not_follow_the_wall_clock(
    set_clock: Callable[[float], None], digits_repository: Path
) -> None:
    # Of grpc's own server the moment in which a call arrives could be told wrongly: it reads the
    # wall clock there, which this cannot set for its native part.
    options = ("--transport", "http2", "--max-queue-delay-ms", "1000")
    calls = []
    with (
        running_service(digits_repository, *options) as service,
        grpc.insecure_channel(service.target) as channel,
    ):
        vae = VaeServiceStub(channel)

        def one_waits() -> bool:
            request = SampleRequest(model="models/digits", sample_count=1, seed=1)
            calls.append(vae.Sample.future(request, timeout=MINUTE))
            return total(service.scrape(), "vae_queue_items") > 0

        for ahead in (DAY, -DAY):
            wait_until(one_waits)
            set_clock(ahead)
            with pytest.raises(grpc.RpcError) as late:
                GRPCInferenceServiceStub(channel).ModelInfer(decoded_within(microseconds=1))
            assert late.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
            for call in calls:
                ran = call.result().execution
                assert 0 <= ran.queue_seconds < MINUTE
                assert 0 <= ran.compute_seconds < MINUTE
        text = service.scrape()
        assert service.stop() == 0

    for name in ("vae_request_duration_seconds", "vae_queue_delay_seconds"):
        assert 0 <= total(text, f"{name}_sum") < MINUTE * len(calls)
    assert total(text, "vae_rejected_total") == 2


def decoded_within(microseconds: int) -> pb.ModelInferRequest:
    """Zero latents, to be decoded within a time in the queue that cannot be kept."""
    request = pb.ModelInferRequest(model_name="digits.decoder")
    request.inputs.add(name="latents", datatype="FP32", shape=(1, 8))
    request.raw_input_contents.append(bytes(32))
    request.parameters["timeout"].int64_param = microseconds
    return request


def total(scraped: str, name: str) -> float:
    """The sum of a metric's samples."""
    return sum(
        sample.value
        for family in text_string_to_metric_families(scraped)
        for sample in family.samples
        if sample.name == name
    )
