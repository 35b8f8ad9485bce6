"""Real child processes; what they run is in `children.py`."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
from pathlib import Path

import numpy as np
import pytest

from streamer.child import ChildProcess, Limits
from streamer.child.arrays import read_array
from streamer.errors import ChildError, ChildLost
from tests.streamer.child import children
from tests.streamer.child.children import Echo, Hello

START_S = 60.0
KINDS = (Hello, Echo)


async def started(target, limits: Limits | None = None, **handlers) -> ChildProcess:
    child = ChildProcess("a child", target, ("x",), KINDS, limits=limits, **handlers)
    assert await child.start(START_S) == Hello("x")
    return child


def test_child_is_asked_and_answers_with_arrays() -> None:
    async def main() -> None:
        child = await started(children.echoing)
        for size in (1, 100_000):
            message, (descriptor,) = await child.ask(Echo(size), 30)
            assert message == Echo(size)
            assert np.array_equal(read_array(descriptor, (size,), "int16"), np.arange(size).astype("int16"))
        assert await child.end() == 0 and await child.end() is None
        with pytest.raises(ChildLost):
            await child.ask(Echo(1), 30)

    asyncio.run(main())


def test_child_that_takes_too_long_is_ended() -> None:
    async def main() -> None:
        child = await started(children.silent)
        with pytest.raises(ChildLost, match=r"longer than 0\.05 s"):
            await child.ask(Echo(1), 0.05)
        assert await child.end() == -9

    asyncio.run(main())


def test_child_whose_answer_nobody_waits_for_is_ended() -> None:
    async def main() -> None:
        child = await started(children.silent)
        asking = asyncio.ensure_future(child.ask(Echo(1), 30))
        await asyncio.sleep(0)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        assert await child.end() == -9

    asyncio.run(main())


def test_death_is_told_to_who_asks_and_to_who_watches() -> None:
    async def main() -> None:
        ends: list[int] = []
        child = await started(children.dying, on_end=lambda: ends.append(1))
        with pytest.raises(ChildLost):
            await child.ask(Echo(1), 30)
        assert ends == [1] and not child.is_running
        assert await child.end() == 3

    asyncio.run(main())


def test_exception_of_a_child_is_told_in_its_words() -> None:
    async def main() -> None:
        child = ChildProcess("a child", children.failing, ("no luck",), KINDS)
        with pytest.raises(ChildError, match="^no luck$"):
            await child.start(START_S)
        assert child.pid is None

    asyncio.run(main())


def test_child_is_held_to_its_memory_and_to_the_size_of_what_it_writes() -> None:
    async def main() -> None:
        child = await started(children.echoing, Limits(memory_bytes=100 << 20, file_bytes=1 << 20))
        assert (await child.ask(Echo(1 << 18), 30))[1]
        with pytest.raises(ChildError, match="allocate"):
            await child.ask(Echo(1 << 26), 30)
        await child.end()
        child = await started(children.echoing, Limits(memory_bytes=100 << 20, file_bytes=1 << 20))
        with pytest.raises(ChildError):
            await child.ask(Echo(1 << 20), 30)
        await child.end()

    asyncio.run(main())


def test_nothing_of_a_child_is_left() -> None:
    async def main() -> None:
        child = await started(children.echoing)
        pid = child.pid
        _, (descriptor,) = await child.ask(Echo(5), 30)
        os.close(descriptor)
        await child.end()
        assert not Path(f"/proc/{pid}").exists()
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(main())  # the first starts the resource tracker
    gc.collect()
    threads, descriptors = threading.active_count(), len(os.listdir("/proc/self/fd"))
    asyncio.run(main())
    gc.collect()
    assert threading.active_count() <= threads and len(os.listdir("/proc/self/fd")) <= descriptors
