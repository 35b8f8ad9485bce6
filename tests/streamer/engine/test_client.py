"""The engine with the test pattern: a real process, shared by the tests that leave it alive."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from streamer.engine import Engine, EngineConfig, EngineStream, Rung, StepCancelled, StreamSpec
from streamer.engine.pattern import COUNTER_BITS, read_counter
from streamer.errors import CapacityError, EngineError, EngineLost, PictureError

SIZE = (128, 96)
CONFIG = EngineConfig(pipeline="test-pattern", pattern_size=SIZE, max_streams=3, mark=None)
SPEC = StreamSpec(np.full((3, *SIZE), 0.5, np.float32))
SILENCE = np.zeros(7680, np.float32)
ROOT = Path(__file__).resolve().parents[3]


def soon(seconds: float = 30.0) -> float:
    return time.monotonic() + seconds


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except FileNotFoundError:
        return False


async def until(condition, seconds: float = 30.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.005)


def stall(engine: Engine, seconds: float | None = None) -> None:
    """The process does nothing for a while, or for good."""
    os.kill(engine.facts.pid, signal.SIGSTOP)
    if seconds is not None:
        asyncio.get_running_loop().call_later(seconds, os.kill, engine.facts.pid, signal.SIGCONT)


@contextlib.asynccontextmanager
async def opened(engine: Engine, spec: StreamSpec = SPEC):
    stream = await engine.open(spec)
    try:
        yield stream
    finally:
        await stream.close()


async def frames_of(stream: EngineStream, samples: np.ndarray = SILENCE) -> tuple[int, np.ndarray]:
    """First frame's index and a copy of the frames of one step."""
    chunk = await stream.step(samples, soon())
    frames = chunk.frames.copy()
    chunk.release()
    return chunk.first_frame, frames


@pytest.fixture(scope="module")
def engine(runner: asyncio.Runner) -> Iterator[Engine]:
    engine = runner.run(Engine.launch(CONFIG))
    yield engine
    runner.run(engine.close())


def test_facts_are_known_when_it_is_launched(engine: Engine) -> None:
    facts = engine.facts
    assert (facts.fps, facts.sample_rate, facts.frame_size, facts.delay_frames) == (25, 16_000, SIZE, 2)
    assert facts.warm_rtf > 0 and engine.is_ready and engine.restarts == 0


def test_neither_side_loads_torch_for_the_test_pattern(engine: Engine) -> None:
    assert "libtorch" not in Path(f"/proc/{engine.facts.pid}/maps").read_text()
    code = "import sys, streamer.engine.client; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_threads_of_the_process_are_calm(engine: Engine) -> None:
    environment = Path(f"/proc/{engine.facts.pid}/environ").read_bytes().split(b"\0")
    assert any(line.startswith((b"GOMP_SPINCOUNT=", b"OMP_WAIT_POLICY=")) for line in environment)


def test_flash_is_exactly_where_the_sound_is(engine: Engine, runner: asyncio.Runner) -> None:
    async def main() -> None:
        sound = np.zeros(3 * 7680, np.float32)
        sound[15 * 640 : 20 * 640] = 0.5
        async with opened(engine) as stream:
            white = []
            for first in range(0, len(sound), 7680):
                index, frames = await frames_of(stream, sound[first : first + 7680])
                assert frames.shape == (12, SIZE[0] * 3 // 2, SIZE[1]) and frames.dtype == np.uint8
                white += [index + k for k, frame in enumerate(frames) if frame[: SIZE[0] // 2].min() == 235]
                numbers = [read_counter(frame[: SIZE[0]]) for frame in frames]
                assert numbers == [(index + k) % 2**COUNTER_BITS for k in range(12)]
            assert white == [15, 16, 17, 18, 19]

    runner.run(main())


def test_chunk_tells_when_it_was_made_and_whether_it_is_late(engine: Engine, runner: asyncio.Runner) -> None:
    async def main() -> None:
        async with opened(engine) as stream:
            chunk = await stream.step(SILENCE, soon())
            assert chunk.queued_s <= chunk.started_s <= chunk.finished_s <= time.monotonic()
            assert not chunk.is_late and chunk.rung is Rung.FULL
            chunk.release()
            chunk.release()
            late = await stream.step(SILENCE, time.monotonic() - 5)
            assert late.is_late and late.rung is Rung.HOLD and late.first_frame == 10
            assert len({frame.tobytes() for frame in late.frames}) == 1

    runner.run(main())


def test_steps_may_be_shorter_than_the_stream_allows(engine: Engine, runner: asyncio.Runner) -> None:
    async def main() -> None:
        async with opened(engine) as stream:
            indices = [await frames_of(stream, np.zeros(n * 2560, np.float32)) for n in (1, 3, 2)]
            assert [(first, len(frames)) for first, frames in indices] == [(-2, 4), (2, 12), (14, 8)]
            for wrong in (np.zeros(4 * 2560), np.zeros(100), np.zeros(0), np.zeros((2560, 1))):
                with pytest.raises(ValueError, match="samples"):
                    await stream.step(wrong, soon())

    runner.run(main())


def test_rewind_of_a_running_step_cancels_it_and_keeps_the_state(engine: Engine, runner: asyncio.Runner) -> None:
    async def main() -> None:
        async with opened(engine) as stream:
            assert not await stream.rewind()
            await frames_of(stream)
            stall(engine, 0.3)
            step = asyncio.create_task(stream.step(SILENCE, soon()))
            await asyncio.sleep(0.05)
            assert await stream.rewind()
            with pytest.raises(StepCancelled):
                await step
            assert not await stream.rewind()
            assert (await frames_of(stream))[0] == 10
            assert (await frames_of(stream))[0] == 22

    runner.run(main())


def test_rewind_of_a_finished_step_goes_back_one_and_its_chunk_stays_valid(
    engine: Engine, runner: asyncio.Runner
) -> None:
    async def main() -> None:
        async with opened(engine) as stream:
            await frames_of(stream)
            chunk = await stream.step(SILENCE + 0.5, soon())
            seen = chunk.frames.copy()
            assert await stream.rewind() and not await stream.rewind()
            first, frames = await frames_of(stream)
            assert first == 10 and stream.frame_index == 22
            assert not np.array_equal(frames, seen) and np.array_equal(chunk.frames, seen)
            chunk.release()

    runner.run(main())


def test_rewound_steps_leave_no_slot_behind(engine: Engine, runner: asyncio.Runner) -> None:
    async def main() -> None:
        async with opened(engine) as stream:
            for _ in range(12):
                step = asyncio.create_task(stream.step(SILENCE, soon()))
                await asyncio.sleep(0)
                await stream.rewind()
                with pytest.raises(StepCancelled):
                    await step
            assert (await frames_of(stream))[0] == -2

    runner.run(main())


def test_cancelled_callers_leave_no_slot_behind(engine: Engine, runner: asyncio.Runner) -> None:
    async def main() -> None:
        async with opened(engine) as stream:
            for delay_s in (0.0, 0.001, 0.005, 0.01, 0.02) * 3:
                step = asyncio.create_task(stream.step(SILENCE, soon()))
                await asyncio.sleep(delay_s)
                step.cancel()
                chunk = (await asyncio.gather(step, return_exceptions=True))[0]
                if not isinstance(chunk, BaseException):
                    chunk.release()
            for _ in range(5):
                await frames_of(stream)

    runner.run(main())


def test_full_ring_waits_until_the_deadline_and_then_says_so(engine: Engine, runner: asyncio.Runner) -> None:
    async def main() -> None:
        async with opened(engine) as stream:
            chunks = [await stream.step(SILENCE, soon()) for _ in range(4)]
            with pytest.raises(EngineError, match="no slot was free"):
                await stream.step(SILENCE, soon(0.05))
            fifth = asyncio.create_task(stream.step(SILENCE, soon()))
            sixth = asyncio.create_task(stream.step(SILENCE, soon()))
            await asyncio.sleep(0.02)
            assert not fifth.done()
            assert await stream.rewind()  # of the sixth, which has not even been sent
            with pytest.raises(StepCancelled):
                await sixth
            chunks[0].release()
            fifth_chunk = await fifth
            assert fifth_chunk.first_frame == 46
            for chunk in [*chunks, fifth_chunk]:
                chunk.release()
            assert (await frames_of(stream))[0] == 58

    runner.run(main())


def test_new_reference_is_shown_from_the_next_step_on(engine: Engine, runner: asyncio.Runner) -> None:
    async def main() -> None:
        async with opened(engine) as stream:
            _, before = await frames_of(stream)
            await stream.update(reference=np.ones((3, *SIZE), np.float32), prompt="x" * 10_000, motion_energy=2.0)
            _, after = await frames_of(stream)
            assert after[0, 0, 0] > before[0, 0, 0] + 20
            with pytest.raises(PictureError, match="128 x 96"):
                await stream.update(reference=np.ones((3, 96, 128), np.float32))
            with pytest.raises(ValueError, match="motion_energy"):
                await stream.update(motion_energy=2.5)
            assert (await frames_of(stream))[0] == 22

    runner.run(main())


def test_streams_over_the_limit_are_refused(engine: Engine, runner: asyncio.Runner) -> None:
    async def main() -> None:
        async with contextlib.AsyncExitStack() as stack:
            streams = [await stack.enter_async_context(opened(engine)) for _ in range(3)]
            with pytest.raises(CapacityError, match="3 streams"):
                await engine.open(SPEC)
            await streams[0].close()
            await streams[0].close()
            async with opened(engine) as another:
                await frames_of(another)
        with pytest.raises(PictureError):
            await engine.open(StreamSpec(np.zeros((3, 8, 8), np.float32)))
        assert engine.streams == 0

    runner.run(main())


def test_closed_stream_fails_what_waits_and_keeps_chunks_that_are_out(engine: Engine, runner: asyncio.Runner) -> None:
    async def main() -> None:
        stream = await engine.open(SPEC)
        chunk = await stream.step(SILENCE, soon())
        seen = chunk.frames.copy()
        stall(engine, 0.2)
        pending = asyncio.create_task(stream.step(SILENCE, soon()))
        await asyncio.sleep(0.05)
        await stream.close()
        for step in (pending, stream.step(SILENCE, soon())):
            with pytest.raises(EngineError, match="closed"):
                await step
        assert not await stream.rewind()
        assert np.array_equal(chunk.frames, seen)
        chunk.release()

    runner.run(main())


def test_loop_is_not_held_up_by_a_stalled_process(engine: Engine, runner: asyncio.Runner) -> None:
    async def main() -> None:
        async with opened(engine) as stream:
            stall(engine, 0.5)
            pending = asyncio.create_task(stream.step(SILENCE, soon()))
            turns = 0
            for _ in range(2000):
                await stream.update(prompt=f"mood {turns}", reference=SPEC.reference)
                await asyncio.sleep(0)
                turns += 1
            assert not pending.done()
            (await pending).release()
            assert (await frames_of(stream))[0] == 10

    runner.run(main())


def test_interrupt_of_the_terminal_does_not_end_the_process(engine: Engine, runner: asyncio.Runner) -> None:
    async def main() -> None:
        async with opened(engine) as stream:
            os.kill(engine.facts.pid, signal.SIGINT)
            await frames_of(stream)
            assert engine.restarts == 0

    runner.run(main())


def test_killed_engine_is_restarted_and_its_streams_go_on(engine: Engine, runner: asyncio.Runner) -> None:
    async def main() -> None:
        async with opened(engine) as stream, opened(engine) as other:
            await frames_of(stream)
            await frames_of(stream)
            kept = await other.step(SILENCE, soon())
            seen = kept.frames.copy()
            await stream.update(reference=np.ones((3, *SIZE), np.float32))
            stall(engine)
            pending = [asyncio.create_task(stream.step(SILENCE, soon())) for _ in range(2)]
            await asyncio.sleep(0.05)
            pid, restarts = engine.facts.pid, engine.restarts
            os.kill(pid, signal.SIGKILL)
            for step in pending:
                with pytest.raises(EngineLost):
                    await step
            assert not engine.is_ready and not await stream.rewind()
            with pytest.raises(EngineLost):
                await stream.step(SILENCE, soon())
            third = asyncio.create_task(engine.open(SPEC))  # waits until it is there again
            await until(lambda: engine.is_ready)
            assert engine.restarts == restarts + 1 and engine.facts.pid != pid and not is_alive(pid)
            assert not Path(f"/proc/{pid}").exists()  # no zombie
            first, frames = await frames_of(stream)
            assert first == 22 and read_counter(frames[0, : SIZE[0]]) == 22
            assert frames[0, 0, 0] > 60  # the reference it was given last
            assert (await frames_of(other))[0] == 10
            assert np.array_equal(kept.frames, seen)
            kept.release()
            await (await third).close()

    runner.run(main())


def test_an_engine_that_dies_between_two_steps_is_told_at_once(engine: Engine, runner: asyncio.Runner) -> None:
    async def main() -> None:
        async with opened(engine) as stream, opened(engine) as closed:
            told: list[str] = []
            stream.on_lost = lambda: told.append("open")
            closed.on_lost = lambda: told.append("closed")
            await frames_of(stream)
            await closed.close()
            os.kill(engine.facts.pid, signal.SIGKILL)
            await until(lambda: not engine.is_ready)
            assert told == ["open"]
            await until(lambda: engine.is_ready)
            assert (await frames_of(stream))[0] == 10 and told == ["open"]

    runner.run(main())


def test_silent_engine_is_ended_and_restarted() -> None:
    async def main() -> None:
        async with await Engine.launch(EngineConfig(pipeline="test-pattern", hang_s=0.4)) as engine:
            stream = await engine.open(StreamSpec(np.zeros((3, 256, 256), np.float32)))
            os.kill(engine.facts.pid, signal.SIGSTOP)
            with pytest.raises(EngineLost):
                await stream.step(SILENCE, soon())
            await until(lambda: engine.is_ready)
            assert (await frames_of(stream))[0] == -2

    asyncio.run(main())


def test_closed_engine_leaves_nothing_behind() -> None:
    async def main() -> int:
        engine = await Engine.launch(CONFIG)
        stream = await engine.open(SPEC)
        await frames_of(stream)
        chunk = await stream.step(SILENCE, soon())
        stall(engine)
        pending = asyncio.create_task(stream.step(SILENCE, soon()))
        await asyncio.sleep(0.02)
        await asyncio.gather(engine.close(), engine.close())
        with pytest.raises(EngineError):
            await pending
        with pytest.raises(EngineError, match="closed"):
            await engine.open(SPEC)
        assert not engine.is_ready
        chunk.release()
        assert asyncio.all_tasks() == {asyncio.current_task()}
        return engine.facts.pid

    gc.collect()
    shared = set(os.listdir("/dev/shm"))
    descriptors = len(os.listdir("/proc/self/fd"))
    pid = asyncio.run(main())
    assert not Path(f"/proc/{pid}").exists()
    gc.collect()  # of the loop and its tasks
    assert set(os.listdir("/dev/shm")) <= shared
    assert len(os.listdir("/proc/self/fd")) <= descriptors


def test_engine_that_cannot_start_says_why() -> None:
    config = EngineConfig(preset="nonesuch")
    with pytest.raises(EngineError, match="nonesuch"):
        asyncio.run(Engine.launch(config))


def test_engine_that_is_not_ready_in_time_is_given_up() -> None:
    with pytest.raises(EngineError, match=r"within 0\.01 s"):
        asyncio.run(Engine.launch(EngineConfig(pipeline="test-pattern", start_timeout_s=0.01)))


PARENT = """
import asyncio, sys
import numpy as np
from streamer.engine import Engine, EngineConfig, StreamSpec

async def main():
    engine = await Engine.launch(EngineConfig(pipeline="test-pattern"))
    await engine.open(StreamSpec(np.zeros((3, 256, 256), np.float32)))
    print(engine.facts.pid, flush=True)
    if sys.argv[1] == "wait":
        await asyncio.sleep(60)

if __name__ == "__main__":
    asyncio.run(main())
"""


@pytest.mark.parametrize("end", ["killed", "forgetful"])
def test_process_ends_with_its_parent_without_a_word(tmp_path: Path, end: str) -> None:
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    line = [sys.executable, str(script), "wait" if end == "killed" else "leave"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment) as parent:
        assert parent.stdout is not None and parent.stderr is not None
        pid = int(parent.stdout.readline())
        if end == "killed":
            parent.kill()
        asyncio.run(until(lambda: not is_alive(pid)))
        assert parent.wait(30) in (0, -signal.SIGKILL)
        errors = parent.stderr.read()
    assert "resource_tracker" not in errors and "Traceback" not in errors
