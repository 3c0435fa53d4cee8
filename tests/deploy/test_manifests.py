"""Every overlay and component renders and fits the schemas of Kubernetes."""

import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from scripts.rendered import (
    COMPONENTS,
    JOBS,
    KUBERNETES,
    OVERLAYS,
    Manifest,
    containers,
    environment,
    one,
    pods,
    render,
    render_with,
)

CUSTOM: dict[str, Any] = yaml.safe_load(
    (Path(__file__).parent / "custom_resources.yaml").read_text()
)
OLDEST, NEWEST = "1.33", "1.37"


def pod_of(containers: list[Manifest]) -> Manifest:
    """A pod with these containers, for what holds containers and is not of the core."""
    metadata, spec = {"name": "pod"}, {"containers": containers}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


def check(manifests: list[Manifest], version: str = NEWEST) -> None:
    """Raises a ValidationError where a manifest has a field that there is not, or lacks one."""
    for manifest in manifests:
        schema = CUSTOM.get(f"{manifest['apiVersion']} {manifest['kind']}")
        if schema is None:
            kubernetes_validate.validate(manifest, version, strict=True)
        else:
            assert set(manifest) == {"apiVersion", "kind", "metadata", "spec"}
            jsonschema.validate(manifest["spec"], schema)
            if "containers" in manifest["spec"]:
                check([pod_of(manifest["spec"]["containers"])], version)


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
@pytest.mark.parametrize("folder", [*OVERLAYS, *JOBS, "kserve"])
def test_a_folder_fits_the_schemas(folder: str, version: str) -> None:
    check(render(folder), version)


@pytest.mark.parametrize("component", COMPONENTS)
def test_the_base_with_a_component_fits_the_schemas(component: str, tmp_path: Path) -> None:
    check(render_with(component, tmp_path))


def test_a_misspelt_field_does_not_fit(tmp_path: Path) -> None:
    deployment = {**one(render("overlays/cpu"), "Deployment")}
    deployment["spec"] = {**deployment["spec"], "replicass": 2}
    with pytest.raises(kubernetes_validate.ValidationError, match="replicass"):
        check([deployment])


def test_a_misspelt_field_of_a_custom_resource_does_not_fit(tmp_path: Path) -> None:
    scaled = {**one(render_with("autoscaling-keda", tmp_path), "ScaledObject")}
    scaled["spec"] = {**scaled["spec"], "maxReplicas": 2}
    with pytest.raises(jsonschema.ValidationError, match="maxReplicas"):
        check([scaled])


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_an_overlay_is_a_few_lines(overlay: str) -> None:
    lines = (KUBERNETES / overlay / "kustomization.yaml").read_text().splitlines()
    assert len([line for line in lines if not line.startswith("#")]) <= 9


def every_rendering(tmp_path: Path) -> list[list[Manifest]]:
    """All folders and the base with each component."""
    rendered = [render(folder) for folder in (*OVERLAYS, *JOBS)]
    for component in COMPONENTS:
        folder = tmp_path / component
        folder.mkdir()
        rendered.append(render_with(component, folder))
    return rendered


def test_every_pod_keeps_to_the_restricted_security_standard(tmp_path: Path) -> None:
    for pod in (pod for manifests in every_rendering(tmp_path) for pod in pods(manifests)):
        assert pod["automountServiceAccountToken"] is False
        assert pod["enableServiceLinks"] is False
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] > 0
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert all("hostPath" not in volume for volume in pod["volumes"])
        for container in containers(pod):
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }


def test_every_container_asks_for_what_it_is_limited_to_and_is_never_throttled(
    tmp_path: Path,
) -> None:
    for pod in (pod for manifests in every_rendering(tmp_path) for pod in pods(manifests)):
        for container in containers(pod):
            resources = container["resources"]
            assert resources["limits"]["memory"] == resources["requests"]["memory"]
            assert "cpu" in resources["requests"]
            assert "cpu" not in resources["limits"]


def images(pod: Manifest) -> list[str]:
    """Of containers and of volumes."""
    mounted = [volume["image"]["reference"] for volume in pod["volumes"] if "image" in volume]
    return [*(container["image"] for container in containers(pod)), *mounted]


def test_every_image_has_a_tag_and_ours_are_of_this_version(tmp_path: Path) -> None:
    version = tomllib.loads((KUBERNETES.parent.parent / "pyproject.toml").read_text())["project"]
    every = [pod for manifests in every_rendering(tmp_path) for pod in pods(manifests)]
    runtime = one(render("kserve"), "ServingRuntime", "vae-serving")["spec"]
    for pod in (*every, {"volumes": [], **runtime}):
        for image in images(pod):
            name, tag = image.rsplit(":", 1)
            assert tag[0].isdigit()
            if name.startswith("vae-serving/") and name != "vae-serving/models":
                assert tag == version["version"]


def test_every_mount_has_its_volume_and_every_variable_its_source(tmp_path: Path) -> None:
    for manifests in every_rendering(tmp_path):
        for pod in pods(manifests):
            volumes = {volume["name"]: volume for volume in pod["volumes"]}
            for container in containers(pod):
                mounted = {mount["name"] for mount in container["volumeMounts"]}
                assert mounted <= set(volumes)
                environment(manifests, container)  # raises where a ConfigMap is missing
            for volume in volumes.values():
                if "configMap" in volume:
                    one(manifests, "ConfigMap", volume["configMap"]["name"])


def test_everything_is_in_one_namespace(tmp_path: Path) -> None:
    for manifests in every_rendering(tmp_path):
        spaces = {m["metadata"].get("namespace") for m in manifests if m["kind"] != "Namespace"}
        assert spaces == {"vae"}


def test_the_jobs_and_the_service_share_one_volume_of_models() -> None:
    claims = {
        volume["persistentVolumeClaim"]["claimName"]
        for folder in ("pipeline", "withdraw", "overlays/local")
        for pod in pods(render(folder))
        for volume in pod["volumes"]
        if volume["name"] == "models"
    }
    assert claims == {"vae-models"}
    one(render("overlays/local"), "PersistentVolumeClaim", "vae-models")
