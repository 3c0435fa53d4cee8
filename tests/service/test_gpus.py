"""Memory of GPUs, by a library that is not there, has no driver, or tells what a test says."""

import sys
from types import SimpleNamespace

import pytest

from service.gpus import GpuMemory, gpu_memory
from service.metrics import Metrics


class NvmlError(Exception):
    """As the library's own."""


class Nvml:
    """NVIDIA's library: its devices, each with bytes used and in all, or None for a lost one."""

    NVMLError = NvmlError

    def __init__(self, *devices: tuple[int, int] | None, driver: bool = True) -> None:
        self.devices = devices
        self._driver = driver

    def nvmlInit(self) -> None:  # noqa: N802 - the library's name, as the next ones
        if not self._driver:
            raise NvmlError("Driver Not Loaded")

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return len(self.devices)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:  # noqa: N802
        return index

    def nvmlDeviceGetMemoryInfo(self, handle: int) -> SimpleNamespace:  # noqa: N802
        memory = self.devices[handle]
        if memory is None:
            raise NvmlError("GPU is lost")
        return SimpleNamespace(used=memory[0], total=memory[1])


def test_without_the_library_nothing_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert gpu_memory() is None


def test_without_a_driver_nothing_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", Nvml((1, 2), driver=False))
    assert gpu_memory() is None


def test_the_devices_are_asked_at_every_scrape(monkeypatch: pytest.MonkeyPatch) -> None:
    nvml = Nvml((1000, 8000), (2000, 16000))
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    memory = gpu_memory()
    assert memory is not None
    metrics = Metrics()
    metrics.follow_gpus(memory)

    def value(name: str, device: str) -> float | None:
        return metrics.registry.get_sample_value(f"vae_gpu_memory_{name}_bytes", {"device": device})

    assert [value("used", device) for device in "01"] == [1000, 2000]
    assert [value("total", device) for device in "01"] == [8000, 16000]
    nvml.devices = ((3000, 8000), None)
    assert memory() == [GpuMemory(0, 3000, 8000)]
    assert [value("used", device) for device in "01"] == [3000, None]
