import os

import numpy as np
import pytest

from streamer.child.arrays import anonymous_file, array_file, read_array


def test_array_survives_the_crossing_and_its_descriptor_does_not() -> None:
    array = np.random.default_rng(0).random((3, 5, 7)).astype(np.float32)
    descriptor = array_file(array[:, ::-1])
    assert np.array_equal(read_array(descriptor, (3, 5, 7)), array[:, ::-1])
    with pytest.raises(OSError):
        os.fstat(descriptor)


def test_file_that_is_smaller_than_the_array_is_refused() -> None:
    with pytest.raises(ValueError):
        read_array(array_file(np.zeros(10, np.float32)), (11,))


def test_memory_works_where_there_is_no_memfd(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "memfd_create")
    descriptor = anonymous_file(100)
    assert os.fstat(descriptor).st_size == 100 and os.fstat(descriptor).st_nlink == 0
    os.close(descriptor)
