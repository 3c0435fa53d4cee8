"""What operators see: health, reflection, metrics, logs, start-up errors, drain."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path

import grpc
import numpy as np
import pytest
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)
from inference.inference_service_pb2_grpc import GRPCInferenceServiceStub
from prometheus_client.parser import text_string_to_metric_families
from vae.v1.vae_service_pb2 import SampleRequest, SampleStreamRequest
from vae.v1.vae_service_pb2_grpc import VaeServiceStub

from scripts.launch import ServiceProcess, running_service
from service.cpus import cpu_quota
from tests.integration.inference_requests import DECODER, Parameter, latents, request
from vae_client import VaeClient, VaeError
from vae_client.errors import error_of

StartService = Callable[..., AbstractContextManager[ServiceProcess]]


@pytest.mark.parametrize(
    "name", ["", "vae.v1.VaeService", "vae.v1.ModelService", "inference.GRPCInferenceService"]
)
def test_health_is_serving_once_the_models_are_loaded(channel: grpc.Channel, name: str) -> None:
    answer = health_pb2_grpc.HealthStub(channel).Check(
        health_pb2.HealthCheckRequest(service=name), timeout=10
    )

    assert answer.status == health_pb2.HealthCheckResponse.SERVING


def test_health_of_an_unknown_service_is_not_found(channel: grpc.Channel) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        health_pb2_grpc.HealthStub(channel).Check(
            health_pb2.HealthCheckRequest(service="nope"), timeout=10
        )

    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


def test_reflection_describes_the_services(channel: grpc.Channel) -> None:
    database = ProtoReflectionDescriptorDatabase(channel)

    services = set(database.get_services())
    service = DescriptorPool(database).FindServiceByName("vae.v1.VaeService")

    assert {"vae.v1.VaeService", "vae.v1.ModelService", "grpc.health.v1.Health"} <= services
    assert {"Sample", "Encode", "Decode"} <= {method.name for method in service.methods}


def samples_of(service: ServiceProcess) -> dict[tuple[str, ...], float]:
    families = text_string_to_metric_families(service.scrape())
    return {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in families
        for sample in family.samples
    }


def test_metrics_count_requests_items_and_errors(
    service: ServiceProcess, client: VaeClient
) -> None:
    before = samples_of(service)

    client.decode("digits", np.zeros((100, 8)))
    with pytest.raises(Exception, match="NOT_FOUND"):
        client.decode("attack-0123456789", np.zeros((1, 8)))

    after = samples_of(service)
    change = {key: value - before.get(key, 0.0) for key, value in after.items()}
    assert change["vae_requests_total", "OK", "vae.v1.VaeService/Decode"] == 1
    assert change["vae_requests_total", "NOT_FOUND", "vae.v1.VaeService/Decode"] == 1
    assert change["vae_request_duration_seconds_count", "vae.v1.VaeService/Decode"] == 2
    assert change["vae_batch_items_sum", "1", "decoder", "digits"] == 100
    assert change["vae_batch_items_count", "1", "decoder", "digits"] == 2
    assert change["vae_padding_items_total", "1", "decoder", "digits"] == 28
    assert not any("attack" in label for key in after for label in key)


def test_a_scrape_has_every_metric_of_the_service(
    service: ServiceProcess, client: VaeClient
) -> None:
    client.sample("digits", 3)
    found = {
        family.name: family.type for family in text_string_to_metric_families(service.scrape())
    }

    assert {name: kind for name, kind in found.items() if name.startswith("vae_")} == {
        "vae_requests": "counter",
        "vae_request_duration_seconds": "histogram",
        "vae_queue_delay_seconds": "histogram",
        "vae_batch_duration_seconds": "histogram",
        "vae_batch_items": "histogram",
        "vae_padding_items": "counter",
        "vae_failed": "counter",
        "vae_cancelled": "counter",
        "vae_rejected": "counter",
        "vae_queue_items": "gauge",
        "vae_model_info": "gauge",
        "vae_model_load_seconds": "gauge",
        "vae_sessions": "gauge",
        "vae_model_load_failures": "counter",
        "vae_repository_readable": "gauge",
        "vae_connections": "gauge",
        "vae_connections_limit": "gauge",
        "vae_connections_refused": "counter",
        "vae_held_bytes": "gauge",
        "vae_held_limit_bytes": "gauge",
    }
    served = samples_of(service)
    assert served["vae_sessions", "digits"] == 5
    assert served["vae_model_load_failures_total", "digits"] == 0


def test_the_metrics_name_the_provider_in_use(service: ServiceProcess) -> None:
    info = [key for key in samples_of(service) if key[0] == "vae_model_info"]

    assert len(info) == 1
    assert "CPUExecutionProvider" in info[0]


def test_sigterm_drains_what_runs_and_ends_with_zero(
    start_service: StartService, transport: str
) -> None:
    lines: list[str] = []
    with (
        start_service("--max-queue-delay-ms", "1000", echo=lines.append) as service,
        VaeClient(service.target) as client,
    ):
        answers: list[tuple[int, ...]] = []
        # 1000 ms of queue delay: the request waits in the queue when the signal comes.
        caller = threading.Thread(
            target=lambda: answers.append(client.sample("digits", 3).observations.shape)
        )
        caller.start()
        while (
            'vae_queue_items{graph="decoder",model="digits",priority="2",version="1"} 3.0'
            not in service.scrape()
        ):
            assert caller.is_alive()
        code = service.stop()
        caller.join()

    assert code == 0
    assert answers == [(3, 1, 8, 8)]
    events = [json.loads(line)["event"] for line in lines]
    if transport == "public":
        assert events.pop(1) == "limits_without_effect"
    assert events == ["listening", "model_loaded", "ready", "draining", "stopped"]


def test_what_goes_on_when_a_drain_ends_is_sent_to_another_replica(
    start_service: StartService,
) -> None:
    with (
        start_service("--drain-delay", "0", "--drain-timeout", "0.2") as service,
        grpc.insecure_channel(service.target) as channel,
        ThreadPoolExecutor() as pool,
    ):
        draw = SampleRequest(model="models/digits", sample_count=2**40)
        stream = VaeServiceStub(channel).SampleStream(SampleStreamRequest(request=draw))
        next(stream)
        code = pool.submit(service.stop)
        with pytest.raises(grpc.RpcError) as caught:
            for _ in stream:
                pass
        assert code.result() == 0

    error = error_of(caught.value)
    assert (error.code, error.reason) == (grpc.StatusCode.UNAVAILABLE, "DRAINING")
    assert error.retry_delay == 0.0


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGINT])
def test_other_signals_that_end_a_program_drain_too(
    start_service: StartService, number: signal.Signals
) -> None:
    lines: list[str] = []
    with start_service(echo=lines.append) as service:
        service.process.send_signal(number)
        assert service.process.wait(30) == 0
        service.join()
    assert [json.loads(line)["event"] for line in lines][-2:] == ["draining", "stopped"]


def test_sigterm_ends_a_service_whose_models_take_for_ever_to_load(
    tmp_path: Path, transport: str
) -> None:
    (tmp_path / "slow" / "1").mkdir(parents=True)
    os.mkfifo(tmp_path / "slow" / "settings.toml")  # which nobody writes: reading it never ends
    (tmp_path / "slow" / "1" / "manifest.json").touch()
    command = [sys.executable, "-m", "service", "--repository", str(tmp_path), *LISTEN]
    command += ["--transport", transport, "--drain-delay", "3600"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert "listening" in process.stderr.readline()
        process.terminate()
        events = [json.loads(line)["event"] for line in process.stderr]
        assert process.wait(30) == 0
    assert events[-2:] == ["draining", "stopped"]


def test_readiness_goes_off_while_the_service_still_answers(start_service: StartService) -> None:
    with (
        start_service("--drain-delay", "2") as service,
        grpc.insecure_channel(service.target) as channel,
    ):
        watch = health_pb2_grpc.HealthStub(channel).Watch(
            health_pb2.HealthCheckRequest(service="vae.v1.VaeService"), timeout=30
        )
        assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
        assert service.says("/readyz")
        service.process.terminate()
        assert next(watch).status == health_pb2.HealthCheckResponse.NOT_SERVING
        assert not service.says("/readyz")
        assert service.says("/livez")
        with VaeClient(service.target) as client:
            assert client.sample("digits", 1).observations.shape == (1, 1, 8, 8)
        watch.cancel()
        assert service.process.wait(30) == 0


def start(*arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "service", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        env={"PATH": "", **environment},
        check=False,
    )


LISTEN = ("--listen", "127.0.0.1:0", "--metrics-port", "0")


@pytest.mark.parametrize("cores", [1, 2])
def test_a_session_has_as_many_threads_as_the_process_has_cores(
    digits_repository: Path, cores: int
) -> None:
    there = sorted(os.sched_getaffinity(0))[:cores]
    if len(there) < cores:
        pytest.skip(f"needs {cores} cores")
    lines: list[str] = []
    within = ("taskset", "--cpu-list", ",".join(map(str, there)))
    with running_service(digits_repository, echo=lines.append, within=within) as service:
        assert service.says("/readyz")

    [listening] = [json.loads(line) for line in lines if '"listening"' in line]
    assert listening["threads"] == min(cores, cpu_quota())


@pytest.fixture
def one_cpu() -> Iterator[Path]:
    """A cgroup whose processes may use one CPU, where this process may make one."""
    of_version_1, cgroups = Path("/sys/fs/cgroup/cpu"), Path("/sys/fs/cgroup")
    folder = (of_version_1 if of_version_1.exists() else cgroups) / f"vae-test-{os.getpid()}"
    try:
        folder.mkdir()
    except OSError as error:
        pytest.skip(f"needs to make a cgroup: {error}")
    try:
        if (folder / "cpu.max").exists():
            (folder / "cpu.max").write_text("100000 100000")
        elif (folder / "cpu.cfs_quota_us").exists():
            (folder / "cpu.cfs_quota_us").write_text("100000")
        else:
            pytest.skip("needs a cgroup with the cpu controller")
        yield folder
    finally:
        folder.rmdir()


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two cores")
def test_a_session_has_as_many_threads_as_the_cgroup_has_cpus(
    digits_repository: Path, one_cpu: Path
) -> None:
    lines: list[str] = []
    within = ("sh", "-c", f'echo $$ > {one_cpu}/cgroup.procs && exec "$@"', "sh")
    with running_service(digits_repository, echo=lines.append, within=within) as service:
        assert service.says("/readyz")

    [listening] = [json.loads(line) for line in lines if '"listening"' in line]
    assert listening["threads"] == 1


def test_cuda_that_is_not_there_is_an_error_at_start(digits_repository: Path) -> None:
    done = start("--repository", str(digits_repository), "--provider", "cuda", *LISTEN)

    assert done.returncode == 2
    assert "CUDA was asked for" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_file_of_wanted_models_that_cannot_be_written_is_an_error_at_start(
    digits_repository: Path, tmp_path: Path
) -> None:
    options = ("--model-control", "explicit", "--wanted-file", str(tmp_path / "no" / "wanted.json"))
    done = start("--repository", str(digits_repository), *options, *LISTEN)

    assert done.returncode == 2
    assert f"{tmp_path}/no is no folder" in done.stderr


def test_an_empty_repository_is_an_error_at_start(tmp_path: Path) -> None:
    done = start("--repository", str(tmp_path), *LISTEN)

    assert done.returncode == 2
    assert f"{tmp_path} holds no model" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_misspelt_variable_is_an_error_at_start(digits_repository: Path) -> None:
    done = start("--repository", str(digits_repository), VAE_METRIC_PORT="1")

    assert done.returncode == 2
    assert "VAE_METRIC_PORT" in done.stderr


def test_variables_configure_the_service(digits_repository: Path) -> None:
    done = start(
        VAE_REPOSITORY=str(digits_repository / "nowhere"),
        VAE_LISTEN="127.0.0.1:0",
        VAE_METRICS_PORT="0",
    )

    assert done.returncode == 2
    assert "nowhere is not a directory" in done.stderr


def test_a_port_in_use_is_an_error_at_start(
    service: ServiceProcess, digits_repository: Path
) -> None:
    done = start(
        "--repository", str(digits_repository), "--listen", service.target, "--metrics-port", "0"
    )

    assert done.returncode == 2
    assert "port" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_full_queue_refuses_at_once_and_makes_room_for_what_is_more_urgent(
    start_service: StartService,
) -> None:
    options = ("--max-queue-items", "1", "--max-queue-delay-ms", "1000")
    with (
        start_service(*options) as service,
        VaeClient(service.target) as client,
    ):
        displaced: list[VaeError] = []

        def wait() -> None:
            with pytest.raises(VaeError) as caught:
                client.sample("digits", 1)
            displaced.append(caught.value)

        caller = threading.Thread(target=wait)
        caller.start()
        while (
            'vae_queue_items{graph="decoder",model="digits",priority="2",version="1"} 1.0'
            not in service.scrape()
        ):
            assert caller.is_alive()

        with pytest.raises(VaeError) as caught:
            client.sample("digits", 1, priority=3)
        urgent = client.sample("digits", 1, priority=1)
        caller.join()
        counted = samples_of(service)

    for error in (caught.value, displaced[0]):
        assert error.code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert error.reason == "QUEUE_FULL"
        assert error.retry_delay is not None
    assert urgent.observations.shape == (1, 1, 8, 8)
    for level in "23":
        assert counted["vae_rejected_total", "1", level, "decoder", "digits", "queue_full"] >= 1


def test_a_request_whose_deadline_passes_in_the_queue_never_runs(
    start_service: StartService,
) -> None:
    with (
        start_service("--max-queue-delay-ms", "500") as service,
        VaeClient(service.target) as client,
    ):
        with pytest.raises(VaeError) as caught:
            client.sample("digits", 1, timeout=0.05)
        client.sample("digits", 1)

        counted = samples_of(service)

    assert caught.value.code is grpc.StatusCode.DEADLINE_EXCEEDED
    left = [counted["vae_cancelled_total", "1", "decoder", "digits"]]
    left.append(counted["vae_rejected_total", "1", "2", "decoder", "digits", "expired"])
    assert sum(left) == 1
    assert counted["vae_batch_items_sum", "1", "decoder", "digits"] == 1


def test_tritons_timeout_holds_in_the_queue_on_every_level(start_service: StartService) -> None:
    with (
        start_service("--max-queue-delay-ms", "100") as service,
        grpc.insecure_channel(service.target) as channel,
    ):
        stub = GRPCInferenceServiceStub(channel)
        for level in (1, 2, 3):
            parameters = {
                "timeout": Parameter(int64_param=1000),  # microseconds
                "priority": Parameter(uint64_param=level),
            }
            message = request(DECODER, arrays={"latents": latents(1)}, parameters=parameters)
            with pytest.raises(grpc.RpcError) as caught:
                stub.ModelInfer(message)
            error = error_of(caught.value)
            assert (error.code, error.reason) == (
                grpc.StatusCode.DEADLINE_EXCEEDED,
                "EXPIRED_IN_QUEUE",
            )


def test_messages_and_answers_are_as_large_as_the_settings_say(start_service: StartService) -> None:
    with (
        start_service("--max-message-mib", "1", "--max-response-mib", "1") as service,
        VaeClient(service.target) as client,
    ):
        most = client.model("digits").max_request_items
        with pytest.raises(VaeError) as too_many:
            client.sample("digits", most + 1)
        with pytest.raises(VaeError) as too_large:
            client.encode("digits", np.zeros((8192, 1, 8, 8), np.float32))

    assert most < 4096
    assert too_many.value.code is grpc.StatusCode.INVALID_ARGUMENT
    assert too_large.value.code is grpc.StatusCode.RESOURCE_EXHAUSTED
