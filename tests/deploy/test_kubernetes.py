"""What the manifests say of the service is true of the service."""

import os
import re
import subprocess
import sys
from pathlib import Path

import grpc
import pytest

from scripts.launch import running_service
from service.health import HEALTH_SERVICE
from service.inference_v2 import INFERENCE_SERVICE
from service.model_servicer import MODEL_SERVICE
from service.server import longest_drain
from service.servicer import VAE_SERVICE
from service.settings import Settings, read_settings
from tests.deploy.metric_names import metrics, rules
from tests.deploy.rendered import (
    COMPONENTS,
    KUBERNETES,
    OVERLAYS,
    Manifest,
    environment,
    one,
    render,
    render_with,
)
from tests.service.transport.certificates import issue, make_authority

READY = {VAE_SERVICE, MODEL_SERVICE, INFERENCE_SERVICE}


def service_container(manifests: list[Manifest]) -> Manifest:
    """The container of the service."""
    [container] = one(manifests, "Deployment")["spec"]["template"]["spec"]["containers"]
    return dict(container)


def settings_of(manifests: list[Manifest], container: Manifest) -> Settings:
    """What the service reads in that container; an error for a variable that is no setting."""
    return read_settings(container.get("args", []), environment(manifests, container))


@pytest.fixture(params=[*OVERLAYS, *COMPONENTS])
def manifests(request: pytest.FixtureRequest, tmp_path: Path) -> list[Manifest]:
    """Each overlay, and the base with each component."""
    name = str(request.param)
    return render(name) if name in OVERLAYS else render_with(name, tmp_path)


def test_every_variable_is_a_setting_of_the_service(manifests: list[Manifest]) -> None:
    settings = settings_of(manifests, service_container(manifests))
    assert settings.repository == "/models"


def test_there_is_time_to_drain_before_the_pod_is_killed(manifests: list[Manifest]) -> None:
    pod = one(manifests, "Deployment")["spec"]["template"]["spec"]
    settings = settings_of(manifests, service_container(manifests))
    assert settings.drain_delay >= 10
    assert pod["terminationGracePeriodSeconds"] >= longest_drain(settings) + 5


def test_the_ports_are_those_that_the_service_listens_on(manifests: list[Manifest]) -> None:
    container = service_container(manifests)
    settings = settings_of(manifests, container)
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert ports == {
        "grpc": int(settings.listen.rpartition(":")[2]),
        "metrics": settings.metrics_port,
    }


def test_probes_ask_for_readiness_by_a_name_that_health_knows_and_for_life_by_none(
    manifests: list[Manifest],
) -> None:
    container = service_container(manifests)
    for probe in ("startupProbe", "readinessProbe"):
        asked = (
            container[probe].get("grpc", {}).get("service")
            or container[probe]["exec"]["command"][-1]
        )
        assert asked in READY
    alive = container["livenessProbe"]
    assert alive.get("grpc") == {"port": 8500} or alive["exec"]["command"][-1].endswith(".py")
    startup = container["startupProbe"]
    assert startup["periodSeconds"] * startup["failureThreshold"] >= 300


def test_what_autoscales_leaves_the_number_of_replicas_alone(manifests: list[Manifest]) -> None:
    scaled = {"HorizontalPodAutoscaler", "ScaledObject"} & {each["kind"] for each in manifests}
    assert ("replicas" in one(manifests, "Deployment")["spec"]) == (not scaled)


def test_services_monitors_and_policies_find_the_pods_and_their_ports(
    manifests: list[Manifest],
) -> None:
    labels = one(manifests, "Deployment")["spec"]["template"]["metadata"]["labels"]
    ports = {port["name"] for port in service_container(manifests)["ports"]}
    for manifest in manifests:
        spec = manifest.get("spec", {})
        if manifest["kind"] == "Service":
            assert spec["selector"].items() <= labels.items()
            assert {port["targetPort"] for port in spec["ports"]} <= ports
        elif manifest["kind"] in {"PodDisruptionBudget", "PodMonitor"}:
            assert spec["selector"]["matchLabels"].items() <= labels.items()
            assert {each["port"] for each in spec.get("podMetricsEndpoints", [])} <= ports
        elif manifest["kind"] == "NetworkPolicy":
            assert spec["podSelector"]["matchLabels"].items() <= labels.items()
            assert {port["port"] for rule in spec["ingress"] for port in rule["ports"]} == ports


def test_one_service_gives_clients_every_replica() -> None:
    assert one(render("overlays/cpu"), "Service", "vae-service-headless")["spec"]["clusterIP"] == (
        "None"
    )


def test_the_job_of_the_rules_is_the_one_that_the_monitor_makes() -> None:
    manifests = render("overlays/cpu")
    label = one(manifests, "PodMonitor")["spec"]["jobLabel"]
    labels = one(manifests, "Deployment")["spec"]["template"]["metadata"]["labels"]
    jobs = {job for rule in rules() for job in re.findall(r'job="([^"]+)"', rule["expr"])}
    assert jobs == {labels[label]}


def test_autoscaling_asks_for_a_metric_that_an_alert_needs_too() -> None:
    [trigger] = one(render("overlays/gpu"), "ScaledObject")["spec"]["triggers"]
    named = {name for rule in rules() for name in metrics(rule["expr"])}
    assert list(metrics(trigger["metadata"]["query"])) == ["vae_queue_delay_seconds_sum"]
    assert "vae_queue_delay_seconds_bucket" in named  # the same histogram, held to a live scrape


def test_the_gpu_overlay_asks_for_a_card_and_refuses_to_run_without_cuda() -> None:
    manifests = render("overlays/gpu")
    container = service_container(manifests)
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert container["image"].split(":")[0] == "vae-serving/service-gpu"
    assert settings_of(manifests, container).provider == "cuda"


def test_the_gateway_lets_the_public_apis_through_and_no_reflection(tmp_path: Path) -> None:
    [rule] = one(render_with("gateway", tmp_path), "GRPCRoute")["spec"]["rules"]
    assert {match["method"]["service"] for match in rule["matches"]} == READY | {HEALTH_SERVICE}


def test_kserve_gives_the_service_settings_and_time_that_it_has() -> None:
    [container] = one(render("kserve"), "ServingRuntime", "vae-serving")["spec"]["containers"]
    settings = settings_of([], container)
    assert settings.repository == "/mnt/models"
    assert longest_drain(settings) <= 30
    assert container["readinessProbe"]["grpc"]["service"] == INFERENCE_SERVICE


def test_the_probe_of_the_component_tls_tells_ready_alive_and_gone(
    digits_repository: Path, tmp_path: Path
) -> None:
    make_authority(tmp_path)
    issue(tmp_path, "server")
    certificate, key, authority = (
        tmp_path / name for name in ("server.crt", "server.key", "ca.crt")
    )
    options = ("--tls-certificate", certificate, "--tls-key", key, "--tls-client-ca", authority)
    credentials = grpc.ssl_channel_credentials(
        authority.read_bytes(), key.read_bytes(), certificate.read_bytes()
    )

    def probe(target: str, *arguments: str) -> int:
        script = KUBERNETES / "components" / "tls" / "probe.py"
        variables = {
            "VAE_LISTEN": target,
            "VAE_TLS_CERTIFICATE": str(certificate),
            "VAE_TLS_KEY": str(key),
            "VAE_TLS_CLIENT_CA": str(authority),
        }
        return subprocess.run(
            [sys.executable, str(script), *arguments],
            env=os.environ | variables,
            capture_output=True,
            check=False,
        ).returncode

    with running_service(digits_repository, *map(str, options), credentials=credentials) as service:
        assert probe(service.target, VAE_SERVICE) == 0
        assert probe(service.target) == 0
        assert probe(service.target, "no.such.Service") != 0
        service.stop()
        assert probe(service.target) != 0
