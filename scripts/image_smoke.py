"""Runs an image of the service, looks around in it, calls it and stops it; `deploy/docker/smoke`.

python -m scripts.image_smoke -- podman run --rm --network host ... IMAGE
"""

import subprocess
import sys
from collections.abc import Sequence

from scripts.launch import started
from vae_client import VaeClient

# What has to fail inside: each line is Python.
FORBIDDEN = {
    "root": "import os; assert os.getuid() == 0",
    "a writable root": "open('/written', 'w')",
    "a writable /tmp": "open('/tmp/written', 'w')",
    "a writable repository": "open('/models/written', 'w')",
    "a compiler": "import shutil; assert shutil.which('cc') or shutil.which('gcc')",
    "pip": "import pip",
    "torch": "import torch",
    "training": "import training",
}


def main(arguments: Sequence[str]) -> int:
    """Returns 0 if the image does what it should; raises AssertionError where it does not."""
    run = list(arguments)[1:]
    for name, code in FORBIDDEN.items():
        command = [*run[:-1], "--entrypoint", "python3", run[-1], "-c", code]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 1, f"the image has {name}: {done.stdout}{done.stderr}"
        print(f"   no {name}: {done.stderr.strip().splitlines()[-1]}")
    command = [*run, "--listen", "127.0.0.1:0", "--metrics-port", "0"]
    with started(command, lambda line: print(f"   {line}")) as service:
        assert service.says("/readyz")
        with VaeClient(service.target) as client:
            drawn = client.sample("digits", 4, seed=7)
            posterior = client.encode("digits", drawn.observations)
        print(f"   Sample: {drawn.observations.shape}, Encode: {posterior.mean.shape}")
        assert "VaeService/Sample" in service.scrape()
        ended = service.stop()
    assert ended == 0, f"SIGTERM ended it with {ended}"
    print("   SIGTERM: drained, exit code 0")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
