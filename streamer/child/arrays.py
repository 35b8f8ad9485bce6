"""Arrays that travel between processes as a descriptor of unnamed memory.

The memory is a memfd: it has no name in /dev/shm that a killed process could leave behind, and it goes when the last
process that maps it does.
"""

from __future__ import annotations

import mmap
import os
import tempfile

import numpy as np


def anonymous_file(size: int) -> int:
    """Descriptor of a new unnamed file of `size` bytes; the caller closes it."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("avatar", os.MFD_CLOEXEC)
    else:
        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
    os.ftruncate(descriptor, size)
    return descriptor


def array_file(array: np.ndarray) -> int:
    """Descriptor of a new unnamed file that holds an array, which may not be empty; see `read_array`."""
    descriptor = anonymous_file(array.nbytes)
    with mmap.mmap(descriptor, array.nbytes) as memory:
        memory.write(np.ascontiguousarray(array).tobytes())
    return descriptor


def read_array(descriptor: int, shape: tuple[int, ...], dtype: str = "float32") -> np.ndarray:
    """The array of `array_file`, copied; closes the descriptor.

    Raises:
        ValueError: if the file is smaller than that.
    """
    try:
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        with mmap.mmap(descriptor, size, prot=mmap.PROT_READ) as memory:
            return np.frombuffer(memory.read(size), dtype).reshape(shape)
    finally:
        os.close(descriptor)
