"""What Kustomize makes of deploy/kubernetes."""

import functools
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

KUBERNETES = Path(__file__).parent.parent / "deploy" / "kubernetes"
OVERLAYS = ("overlays/local", "overlays/cpu", "overlays/gpu")
JOBS = ("pipeline", "overlays/local/pipeline", "withdraw")
COMPONENTS = sorted(path.name for path in (KUBERNETES / "components").iterdir())
Manifest = dict[str, Any]


@functools.cache
def render(folder: str) -> list[Manifest]:
    """The manifests of a folder of deploy/kubernetes, or of any."""
    kubectl = str(Path(sys.executable).parent / "kubectl")
    command = [kubectl, "kustomize", str(KUBERNETES / folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


def render_with(component: str, folder: Path) -> list[Manifest]:
    """The base with one component, and with models where it brings none."""
    names = [component] if component.startswith("models-") else ["models-pvc", component]
    written = {
        "namespace": "vae",
        "resources": [os.path.relpath(KUBERNETES / "base", folder)],
        "components": [os.path.relpath(KUBERNETES / "components" / name, folder) for name in names],
    }
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(written))
    return render(str(folder))


def one(manifests: list[Manifest], kind: str, name: str = "vae-service") -> Manifest:
    """The manifest of that kind and name."""
    [found] = (m for m in manifests if m["kind"] == kind and m["metadata"]["name"] == name)
    return found


def pods(manifests: list[Manifest]) -> Iterator[Manifest]:
    """The pod specification of every Deployment and Job."""
    for manifest in manifests:
        if manifest["kind"] in {"Deployment", "Job"}:
            yield manifest["spec"]["template"]["spec"]


def containers(pod: Manifest) -> list[Manifest]:
    """All containers of a pod, initial ones too."""
    return [*pod.get("initContainers", []), *pod["containers"]]


def environment(manifests: list[Manifest], container: Manifest) -> dict[str, str]:
    """The variables of a container, those of ConfigMaps too."""
    values: dict[str, str] = {}
    for source in container.get("envFrom", []):
        if "configMapRef" in source:
            values |= one(manifests, "ConfigMap", source["configMapRef"]["name"])["data"]
    return values | {each["name"]: each.get("value", "") for each in container.get("env", [])}
