"""The process's heap: how much of what is freed the C library keeps for the next allocation."""

import ctypes
import sys

# mallopt's numbers in <malloc.h> of glibc, which leaves calls that it does not know without effect.
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_BYTES = 2**30


def keep_freed_memory() -> bool:
    """Keep up to 1 GiB of freed memory, and take blocks below that from it; whether that is so.

    A step of a fit frees its activations, which glibc gives back to the kernel; the next step gets
    them as new pages, each zeroed upon its first use, which is a fourth of a convolution's time.
    For the whole process, so a command line calls it and no library does. False where there is no
    glibc.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return all(mallopt(name, _BYTES) == 1 for name in (_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD))
