"""CUDA's runtime for tests: the host is the device, too."""

import ctypes


class FakeRuntime:
    """A `service.pinned.Runtime` on ordinary memory; `allocated` by address."""

    def __init__(self) -> None:
        self.allocated: dict[int, object] = {}
        self.refuses = False
        self.fails = False

    def allocate(self, size: int) -> int:
        if self.refuses:
            raise MemoryError
        memory = ctypes.create_string_buffer(size)
        address = ctypes.addressof(memory)
        self.allocated[address] = memory
        return address

    def free(self, address: int) -> None:
        del self.allocated[address]

    def copy(self, destination: int, source: int, size: int) -> None:
        if self.fails:
            raise RuntimeError("the device is lost")
        ctypes.memmove(destination, source, size)
