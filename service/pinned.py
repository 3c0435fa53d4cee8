"""Pinned memory: of the host, and the device writes to it directly.

A copy out of the device into ordinary memory takes two steps, by way of memory of the driver's, and
fresh memory for every answer costs the kernel's zeroing as well. Here answers lie in pinned memory,
which is allocated once and used again when nobody has the answer any more.
"""

import contextlib
import ctypes
import os
from collections import deque
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from service.device_gate import DeviceGate

_LIBRARIES = ("libcudart.so.13", "libcudart.so.12")
_FROM_DEVICE = 2  # cudaMemcpyDeviceToHost
# Of a size; answers beyond (to clients that read slowly) have memory of their own.
_KEPT = 4
_KEPT_BYTES = 2**26


class Runtime(Protocol):
    """What CUDA's runtime does for memory, by addresses."""

    def allocate(self, size: int) -> int:
        """Pinned memory of so many bytes. Raises MemoryError."""
        ...

    def free(self, address: int) -> None:
        """Gives back what `allocate` gave."""
        ...

    def copy(self, destination: int, source: int, size: int) -> None:
        """Copies bytes from the device, and waits for them. Raises RuntimeError."""
        ...


def cuda_runtime() -> "CudaRuntime | None":
    """CUDA's runtime as onnxruntime has loaded it, or None if it has not."""
    for name in _LIBRARIES:
        with contextlib.suppress(OSError):
            return CudaRuntime(ctypes.CDLL(name, mode=os.RTLD_NOLOAD))
    return None


class CudaRuntime:
    """NVIDIA's library for it."""

    def __init__(self, library: ctypes.CDLL) -> None:
        size, address = ctypes.c_size_t, ctypes.c_void_p
        library.cudaMallocHost.argtypes = (ctypes.POINTER(address), size)
        library.cudaFreeHost.argtypes = (address,)
        library.cudaMemcpy.argtypes = (address, address, size, ctypes.c_int)
        self._library = library

    def allocate(self, size: int) -> int:
        address = ctypes.c_void_p()
        code = self._library.cudaMallocHost(ctypes.byref(address), size)
        if code or address.value is None:
            raise MemoryError(f"CUDA gives no {size} bytes of pinned memory: error {code}")
        return address.value

    def free(self, address: int) -> None:
        self._library.cudaFreeHost(address)

    def copy(self, destination: int, source: int, size: int) -> None:
        if code := self._library.cudaMemcpy(destination, source, size, _FROM_DEVICE):
            raise RuntimeError(f"copying {size} bytes from the device failed: CUDA error {code}")


class Answers:
    """Copies outputs of one shape and dtype out of the device."""

    def __init__(self, runtime: Runtime, gate: DeviceGate, like: NDArray[np.generic]) -> None:
        self._runtime, self._gate = runtime, gate
        self._shape, self._dtype, self._size = like.shape, like.dtype, like.nbytes
        self._free: deque[_Block] = deque()
        self._left = min(_KEPT, _KEPT_BYTES // self._size)  # blocks that may still be made

    def read(self, source: int) -> NDArray[np.generic]:
        """A copy of the output at this address of the device, in memory that nobody else has.

        Raises RuntimeError if CUDA does. Called inside of the gate, by one thread at a time.
        """
        block = self._block()
        if block is None:
            array = np.empty(self._shape, self._dtype)
            address = array.ctypes.data
        else:
            array = np.asarray(_Lease(block, self._free, self._shape, self._dtype))
            address = block.address
        self._runtime.copy(address, source, self._size)
        return array

    def _block(self) -> "_Block | None":
        with contextlib.suppress(IndexError):
            return self._free.pop()
        if self._left:
            self._left -= 1  # if there is none to have, there will be none the next time
            with contextlib.suppress(MemoryError):
                return _Block(self._runtime, self._gate, self._size)
        return None


class _Block:
    """Pinned memory, freed with this object."""

    def __init__(self, runtime: Runtime, gate: DeviceGate, size: int) -> None:
        self.address = runtime.allocate(size)
        self._runtime, self._gate = runtime, gate

    def __del__(self) -> None:
        if "_runtime" in self.__dict__:
            with self._gate.shared():  # freeing waits for the device
                self._runtime.free(self.address)


class _Lease:
    """Whose memory an array has; numpy keeps it until the last view of the array is gone."""

    def __init__(
        self,
        block: _Block,
        free: "deque[_Block]",
        shape: tuple[int, ...],
        dtype: np.dtype[np.generic],
    ) -> None:
        self._block, self._free = block, free
        self.__array_interface__ = {
            "version": 3,
            "data": (block.address, False),
            "shape": shape,
            "typestr": dtype.str,
        }

    def __del__(self) -> None:
        self._free.append(self._block)
