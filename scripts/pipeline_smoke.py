"""Runs what the manifests say in containers: the two Jobs of pipeline/, then the service of
overlays/local on what they published; `deploy/docker/smoke` calls it.

    python -m scripts.pipeline_smoke --tag smoke -- podman ... run ... --network host

A kubelet's part is played here: users, groups, mounts, variables, security contexts, command lines
and limits are those of the manifests, a claim is a folder of the group that fsGroup names, and both
pods of the training Job share this host's network. A container that needs more memory than it may
is killed, as there; what each held at most is said. Not from the manifests: the service takes free
ports, and requests reserve nothing.
"""

import argparse
import contextlib
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from scripts.launch import started
from scripts.pod_memory import Peak, quantity
from scripts.rendered import Manifest, environment, one, render
from vae_client import VaeClient

_SECONDS = 600
_MIB = 2**20
_FREE_PORTS = {
    "VAE_LISTEN": "127.0.0.1:0",
    "VAE_METRICS_HOST": "127.0.0.1",
    "VAE_METRICS_PORT": "0",
}


def expanded(text: str, variables: Mapping[str, str]) -> str:
    """Kubernetes' $(NAME) in a command line; one that is not there stays as it is."""
    return re.sub(r"\$\((\w+)\)", lambda found: variables.get(found[1], found[0]), text)


@dataclass(frozen=True)
class Kubelet:
    """Makes containers of pods. podman: the command up to `run` and its options. volumes: a folder
    in which each claim, and each pod's temporary folder, has its own."""

    podman: Sequence[str]
    tag: str
    volumes: Path

    def command(
        self, manifests: Sequence[Manifest], pod: Manifest, name: str, **variables: str
    ) -> list[str]:
        """What runs the one container of a pod under a name, with more variables at the end."""
        [container] = pod["containers"]
        values = environment(list(manifests), container) | variables
        words = [*container.get("command", []), *container.get("args", [])]
        words = [expanded(word, values) for word in words]
        entry = words[:1] if "command" in container else []
        image = f"localhost/{container['image'].partition(':')[0]}:{self.tag}"
        return [
            *self.podman,
            *("--name", name),
            *_limits(container["resources"]["limits"]),
            *_security(pod["securityContext"], container["securityContext"]),
            *self._mounts(pod, container),
            *(word for name, value in values.items() for word in ("--env", f"{name}={value}")),
            *(["--entrypoint", *entry] if entry else []),
            image,
            *words[len(entry) :],
        ]

    @contextlib.contextmanager
    def watching(self, pod: Manifest, name: str) -> Iterator[None]:
        """Says at the end of the block how much memory the container of that name held in it.

        Raises AssertionError if nothing was seen of it.
        """
        limit = quantity(pod["containers"][0]["resources"]["limits"]["memory"])
        with Peak(self.podman[: self.podman.index("run")], name) as peak:
            yield
        print(f"   {name}: held {peak.held / _MIB:.0f} of {limit / _MIB:.0f} MiB", flush=True)
        assert 0 < peak.held < limit

    def _mounts(self, pod: Manifest, container: Manifest) -> list[str]:
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        options = []
        for mount in container["volumeMounts"]:
            claim = volumes[mount["name"]].get("persistentVolumeClaim")
            if claim:
                folder = self.volumes / claim["claimName"]
                folder.mkdir(exist_ok=True)
            else:
                folder = Path(tempfile.mkdtemp(dir=self.volumes))
            os.chown(folder, -1, pod["securityContext"]["fsGroup"])
            folder.chmod(0o2775)
            kind = "ro" if mount.get("readOnly") else "rw"
            options += ["--volume", f"{folder}:{mount['mountPath']}:{kind}"]
        return options


def _limits(limits: Manifest) -> list[str]:
    memory = str(quantity(limits["memory"]))
    options = ["--memory", memory, "--memory-swap", memory]  # so none of it in swap
    return [*options, "--cpus", limits["cpu"]] if "cpu" in limits else options


def _security(pod: Manifest, container: Manifest) -> list[str]:
    assert container["readOnlyRootFilesystem"]
    assert not container["allowPrivilegeEscalation"]
    user = f"{pod['runAsUser']}:{pod['runAsGroup']}"
    options = ["--read-only", "--read-only-tmpfs=false", "--security-opt", "no-new-privileges"]
    options += ["--user", user, "--group-add", str(pod["fsGroup"])]
    return options + [f"--cap-drop={name.lower()}" for name in container["capabilities"]["drop"]]


def train(kubelet: Kubelet) -> None:
    """Runs the pods of the training Job beside each other."""
    manifests = render("pipeline")
    job = one(manifests, "Job", "vae-training")["spec"]
    pod = job["template"]["spec"]
    first = f"vae-training-0.{pod['subdomain']}"  # what the Job's headless Service would resolve
    near = Kubelet(
        [*kubelet.podman, "--add-host", f"{first}:127.0.0.1"], kubelet.tag, kubelet.volumes
    )
    with contextlib.ExitStack() as stack:
        processes = []
        for index in range(job["completions"]):
            name = f"vae-training-{index}-{os.getpid()}"
            command = near.command(manifests, pod, name, JOB_COMPLETION_INDEX=str(index))
            stack.enter_context(near.watching(pod, name))
            processes.append(stack.enter_context(subprocess.Popen(command)))
            stack.callback(processes[-1].kill)
        codes = [process.wait(_SECONDS) for process in processes]
    assert codes == [0] * job["completions"], f"the pods of the training Job ended with {codes}"


def export(kubelet: Kubelet) -> str:
    """Runs the export Job; the name of the model that it publishes."""
    manifests = render("pipeline")
    pod = one(manifests, "Job", "vae-export")["spec"]["template"]["spec"]
    name = f"vae-export-{os.getpid()}"
    with kubelet.watching(pod, name):
        subprocess.run(kubelet.command(manifests, pod, name), check=True, timeout=_SECONDS)
    return environment(manifests, pod["containers"][0])["MODEL"]


def serve(kubelet: Kubelet, model: str) -> None:
    """Runs a pod of the service, calls it and stops it."""
    manifests = render("overlays/local")
    pod = one(manifests, "Deployment")["spec"]["template"]["spec"]
    name = f"vae-service-{os.getpid()}"
    command = kubelet.command(manifests, pod, name, **_FREE_PORTS)
    with (
        kubelet.watching(pod, name),
        started(command, lambda line: print(f"   {line}")) as service,
    ):
        assert service.says("/readyz")
        with VaeClient(service.target) as client:
            drawn = client.sample(model, 16, seed=7)
        print(f"   Sample: {drawn.observations.shape} of {drawn.model}")
        ended = service.stop()
    assert ended == 0, f"SIGTERM ended it with {ended}"


def main(arguments: Sequence[str]) -> int:
    """Returns 0 if a model came all the way; an error says where it did not."""
    parser = argparse.ArgumentParser(description="Runs the manifests' pods by podman.")
    parser.add_argument("--tag", required=True, help="of the images")
    parser.add_argument("podman", nargs="+", help="the command that runs a container")
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        kubelet = Kubelet(given.podman, given.tag, Path(folder))
        print("   Job vae-training", flush=True)
        train(kubelet)
        print("   Job vae-export", flush=True)
        model = export(kubelet)
        print("   Deployment vae-service", flush=True)
        serve(kubelet, model)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
