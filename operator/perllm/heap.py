"""The memory of the process as the C library manages it: what one decision frees is kept for the next.

A decision among 5,000 nodes needs 2 MB of arrays. glibc returns free memory at the end of the heap to the kernel, by
default as soon as there is some hundred kB of it, and the next decision then waits while the kernel clears it again:
some 300 pages, a quarter of its time.
"""

import ctypes

KEPT_BYTES = 32 * 2**20
"""Free memory that is kept."""

SEPARATE_BYTES = 4 * 2**20
"""Blocks of this size are mapped one by one, and returned when they are freed."""

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""What mallopt calls them (malloc.h)."""


def keep_freed_memory() -> None:
    """Keep what is freed up to a size; does nothing where the C library has no such setting."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_TRIM_THRESHOLD, KEPT_BYTES)
        mallopt(_MMAP_THRESHOLD, SEPARATE_BYTES)
