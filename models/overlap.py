"""Two chunks of one stream on the way at once: the LR half of one beside the HR half of the one before."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace

import torch
from torch import Tensor

from models.configs import SamplingConfig
from models.pipeline import AvatarPipeline
from models.state import ChunkState, Draft
from models.talking import Chunk, Rung


def overlapped(
    pipeline: AvatarPipeline, sounds: Iterable[Tensor], state: ChunkState, sampling: SamplingConfig | Rung = Rung.FULL
) -> Iterator[Chunk[ChunkState]]:
    """The chunks, as `AvatarPipeline.step` gives them one after the other.

    For sound that is there already: a chunk waits for the next one's sound. On CUDA each half has a stream of its
    own, elsewhere a thread; a half waits for its own stream at the end of every stage, so nothing is read early.

    Args:
        sounds: samples of the chunks, as in `step`.
        state: before the first one.
    """
    low, high = (_own_stream(pipeline.device) for _ in range(2))

    def draft(samples: Tensor, before: ChunkState) -> Draft:
        with low():
            return pipeline.draft([samples], [before], sampling)

    def finish(drafted: Draft, before: ChunkState) -> Chunk[ChunkState]:
        with high():
            return pipeline.finish(replace(drafted, states=[drafted.states[0].with_hr_of(before)]))[0]

    pending: Draft | None = None
    with ThreadPoolExecutor(1, "draft") as beside:
        for samples in sounds:
            following = beside.submit(draft, samples, state if pending is None else pending.after[0])
            if pending is not None:
                chunk = finish(pending, state)
                state = chunk.state
                yield chunk
            pending = following.result()
        if pending is not None:
            yield finish(pending, state)


def _own_stream(device: torch.device) -> Callable[[], AbstractContextManager]:
    """Contexts in which work is launched on a stream of its own, after all that was launched so far."""
    if device.type != "cuda":
        return nullcontext
    stream = torch.cuda.Stream(device)
    stream.wait_stream(torch.cuda.current_stream(device))
    return lambda: torch.cuda.stream(stream)
