"""What the manifests say of the service is true of the service."""

import re
from pathlib import Path

import pytest

from scripts.rendered import (
    COMPONENTS,
    OVERLAYS,
    Manifest,
    environment,
    one,
    render,
    render_with,
)
from service.health import HEALTH_SERVICE, LIVENESS
from service.inference_v2 import INFERENCE_SERVICE
from service.model_servicer import MODEL_SERVICE
from service.probes import ALIVE, READY
from service.server import longest_drain
from service.servicer import VAE_SERVICE
from service.settings import Settings, read_settings
from tests.deploy.metric_names import metrics, rules

SERVICES = {VAE_SERVICE, MODEL_SERVICE, INFERENCE_SERVICE}


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


def test_a_rollout_gives_clients_time_to_look_the_name_up_again(manifests: list[Manifest]) -> None:
    assert one(manifests, "Deployment")["spec"]["minReadySeconds"] >= 10  # docs/clients.md


def test_the_ports_are_those_that_the_service_listens_on(manifests: list[Manifest]) -> None:
    container = service_container(manifests)
    settings = settings_of(manifests, container)
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert ports == {
        "grpc": int(settings.listen.rpartition(":")[2]),
        "metrics": settings.metrics_port,
    }


def asked_by(probe: Manifest) -> str:
    """What a probe asks for: a name of gRPC's health, or a path of HTTP."""
    if "httpGet" in probe:
        assert probe["httpGet"]["port"] == "metrics"
        return str(probe["httpGet"]["path"])
    assert probe["grpc"]["port"] == 8500
    return str(probe["grpc"].get("service", LIVENESS))


def test_probes_ask_for_readiness_and_life_in_a_way_that_the_service_answers(
    manifests: list[Manifest],
) -> None:
    container = service_container(manifests)
    tls = settings_of(manifests, container).tls_certificate is not None
    asked = {name: asked_by(container[f"{name}Probe"]) for name in ("startup", "readiness")}
    assert set(asked.values()) == {READY if tls else VAE_SERVICE}  # gRPC's probes know no TLS
    assert asked_by(container["livenessProbe"]) == (ALIVE if tls else LIVENESS)
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
    assert {match["method"]["service"] for match in rule["matches"]} == SERVICES | {HEALTH_SERVICE}


def test_kserve_gives_the_service_settings_and_time_that_it_has() -> None:
    [container] = one(render("kserve"), "ServingRuntime", "vae-serving")["spec"]["containers"]
    settings = settings_of([], container)
    assert settings.repository == "/mnt/models"
    assert longest_drain(settings) <= 30
    assert container["readinessProbe"]["grpc"]["service"] == INFERENCE_SERVICE
