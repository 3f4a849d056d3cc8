"""Keeping the process small: what glibc is told at the start, and when it gives memory back. Elsewhere nothing happens.

Left alone, glibc keeps most of what a closed ONNX Runtime session frees, in arenas of every thread that ever lived: some tens of MiB more
with each swap of bundles.
"""

import ctypes

M_MMAP_THRESHOLD, MMAP_THRESHOLD_BYTES = -3, 1024 * 1024
"""Weights and tensors from this size on are mapped by themselves and so leave with the session. Saying so also keeps glibc from raising
the bound, to 32 MiB, after the first session that is closed."""

M_ARENA_MAX, ARENAS = -8, 4
"""Fewer than one for each thread: model threads come and go with their bundles, and hardly allocate while they run."""


def arrange() -> None:
    """Tell the allocator, before there are threads."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, MMAP_THRESHOLD_BYTES)
        mallopt(M_ARENA_MAX, ARENAS)


def give_back() -> None:
    """Return freed memory to the system. Takes milliseconds, on any thread."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
