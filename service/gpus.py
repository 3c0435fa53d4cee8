"""Memory of the GPUs, by NVIDIA's library for management, which is imported here alone."""

from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType


@dataclass(frozen=True)
class GpuMemory:
    """device: its number on this machine. used, total: bytes; used by whomever."""

    device: int
    used: int
    total: int


def gpu_memory() -> Callable[[], list[GpuMemory]] | None:
    """What tells the memory of all devices that can be seen; None without library or driver."""
    try:
        import pynvml  # of the extra service-gpu

        pynvml.nvmlInit()
    except ImportError:
        return None
    except pynvml.NVMLError:
        return None
    return lambda: _read(pynvml)


def _read(nvml: ModuleType) -> list[GpuMemory]:
    found = []
    try:
        for device in range(nvml.nvmlDeviceGetCount()):
            memory = nvml.nvmlDeviceGetMemoryInfo(nvml.nvmlDeviceGetHandleByIndex(device))
            found.append(GpuMemory(device, int(memory.used), int(memory.total)))
    except nvml.NVMLError:
        pass  # a device is lost, or does not tell: those before it still do
    return found
