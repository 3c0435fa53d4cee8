"""The process's heap: which memory the C library keeps, and on what pages the kernel puts it."""

import ctypes
import re
import sys
from pathlib import Path

# mallopt's numbers in <malloc.h> of glibc, which leaves calls that it does not know without effect.
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_BYTES = 2**30
# madvise's in <linux/mman.h>.
_MADV_HUGEPAGE = 14
_MADV_COLLAPSE = 25
_RESERVED_BYTES = 2**29


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


def use_huge_pages() -> bool:
    """Have the heap on pages of 2 MiB, what is there and the next 512 MiB; whether that is so.

    What torch looks up for each operation lies all over the heap: on pages of 4 KiB, more than a
    processor remembers the places of. To be called once torch is imported, by a command line, after
    `keep_freed_memory`, without which so large a block is none of the heap's. Takes 0.2 s and no
    memory that is not written to. False where the kernel has no such pages (before Linux 6.1).
    """
    if not sys.platform.startswith("linux"):
        return False
    libc = ctypes.CDLL(None)
    libc.malloc.argtypes, libc.malloc.restype = [ctypes.c_size_t], ctypes.c_void_p
    libc.free.argtypes = [ctypes.c_void_p]
    libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    # Pages are for what the heap has by now, so it is made to have more, and keeps that.
    block = libc.malloc(_RESERVED_BYTES)
    heap = re.search(r"^(\w+)-(\w+) .*\[heap\]$", Path("/proc/self/maps").read_text(), re.MULTILINE)
    start, end = (int(bound, 16) for bound in heap.groups()) if heap else (0, 0)
    within = block is not None and start <= block < end
    done = (
        within
        and libc.madvise(start, end - start, _MADV_HUGEPAGE) == 0
        and libc.madvise(start, block - start, _MADV_COLLAPSE) == 0
    )
    libc.free(block)
    return done
