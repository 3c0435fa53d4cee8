"""The service on a CUDA device; `make test-gpu`."""

from collections.abc import Callable
from contextlib import AbstractContextManager

import numpy as np
import pytest

from scripts.launch import ServiceProcess
from vae_client import VaeClient

pytestmark = pytest.mark.gpu


def test_cuda_gives_the_answers_of_the_cpu_and_says_that_it_runs(
    start_service: Callable[..., AbstractContextManager[ServiceProcess]], client: VaeClient
) -> None:
    with (
        start_service("--provider", "cuda") as service,
        VaeClient(service.target) as on_cuda,
    ):
        answers = [on_cuda.sample("digits", count, seed=7).observations for count in (1, 64, 200)]
        provider = on_cuda.model("digits").execution_provider

    assert provider == "CUDAExecutionProvider"
    for answer in answers:
        expected = client.sample("digits", len(answer), seed=7).observations
        np.testing.assert_allclose(answer, expected, atol=1e-3)
