"""Renders many takes with several processes, and shows them on contact sheets."""

from __future__ import annotations

import multiprocessing
import os
import queue
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from training.synthetic import shards
from training.synthetic.speech import load_corpus
from training.synthetic.takes import TakeSpec, make_take
from training.synthetic.visemes import FPS

_REPORT_FRAMES = 25


def plan(
    presenters: Sequence[str],
    frames: int,
    take_frames: int,
    split: str,
    framing: str,
    seed: int,
    voices: Sequence[str] = ("",),
    first_take: int = 0,
) -> list[TakeSpec]:
    """The takes of a run, presenters in turn, `frames` in all; voices change from one take to the next.

    Each presenter's takes are numbered from `first_take` on.

    Raises:
        ValueError: if there are no presenters, or frames or take_frames is below 1.
    """
    if not presenters or frames < 1 or take_frames < 1:
        raise ValueError(f"nothing to render: {len(presenters)} presenters, {frames} frames in {take_frames}s")
    rounds = -(-frames // (take_frames * len(presenters)))
    return [
        TakeSpec(presenter, index, split, framing, seed, voices[index % len(voices)], take_frames)
        for index in range(first_take, first_take + rounds)
        for presenter in presenters
    ]


def share_out(specs: Sequence[TakeSpec], workers: int) -> list[list[TakeSpec]]:
    """Takes for each worker in their order; a presenter stays with one worker where there are enough of them."""
    presenters = list(dict.fromkeys(spec.presenter for spec in specs))
    shares: list[list[TakeSpec]] = [[] for _ in range(workers)]
    for number, spec in enumerate(specs):
        key = presenters.index(spec.presenter) if len(presenters) >= workers else number
        shares[key % workers].append(spec)
    return [share for share in shares if share]


class _Stage:
    """The presenters of one process, set up when they are first needed."""

    def __init__(self, size: int, assets: Path | None) -> None:
        from training.synthetic.renderer import Renderer

        self._assets = assets
        self._renderer = Renderer(size=size)
        self._presenters: dict[str, Any] = {}

    def presenter(self, name: str) -> Any:
        from training.synthetic.identity import GALLERY, sample_identity
        from training.synthetic.presenter import Presenter

        if name not in self._presenters:
            identity = sample_identity(int(name.removeprefix("p"))) if _is_number(name) else GALLERY[name]
            self._presenters[name] = Presenter(self._renderer, identity, assets=self._assets)
        return self._presenters[name]


def _is_number(name: str) -> bool:
    """Whether a presenter is named by the seed of a random identity, as in "p17"."""
    return name.startswith("p") and name[1:].isdigit()


def write_reference(out: Path, presenter: Any, name: str, framing: str) -> None:
    """Write `reference_<name>_<framing>.png`: at rest, face neutral, mouth shut; and its keypoints, `.npz`."""
    from PIL import Image

    from training.synthetic.rig import FramePose

    path = out / f"reference_{name}_{framing}.png"
    if not path.exists():
        out.mkdir(parents=True, exist_ok=True)
        picture, keypoints = presenter.render(FramePose(), framing)
        Image.fromarray(picture).save(path)
        np.savez(path.with_suffix(".npz"), keypoints=keypoints)


def _work(
    out: Path,
    specs: list[TakeSpec],
    speech: Path,
    assets: Path | None,
    size: int,
    with_pictures: bool,
    reports: Any,
) -> None:
    """Render the takes of one worker; reports frames done, then None, or the error that ended it."""
    try:
        clips = load_corpus(speech)
        stage = _Stage(size, assets)
        for spec in specs:
            if shards.is_finished(out, spec.name):
                reports.put(spec.n_frames)
                continue
            presenter = stage.presenter(spec.presenter)
            write_reference(out, presenter, spec.presenter, spec.framing)
            take = make_take(spec, clips)
            if not with_pictures:
                shards.write(out, take, keypoints=[presenter.keypoints(pose, spec.framing) for pose in take.poses()])
                reports.put(spec.n_frames)
                continue

            def rendered(take=take, presenter=presenter) -> Iterator[tuple[np.ndarray, np.ndarray]]:
                for index, pose in enumerate(take.poses()):
                    yield presenter.render(pose, take.spec.framing)
                    if (index + 1) % _REPORT_FRAMES == 0:
                        reports.put(_REPORT_FRAMES)

            shards.write(out, take, rendered())
            reports.put(spec.n_frames % _REPORT_FRAMES)
        reports.put(None)
    except Exception as error:  # the boundary of the process: the parent ends the run with this line
        reports.put(f"{type(error).__name__}: {error}")
        raise


def render(
    out: Path,
    specs: Sequence[TakeSpec],
    speech: Path,
    assets: Path | None,
    size: int = 256,
    workers: int = 1,
    with_pictures: bool = True,
) -> None:
    """Render takes with several processes, or their keypoints alone.

    Raises:
        RuntimeError: if a worker fails.
    """
    # One thread a process: two rasteriser or BLAS threads of two processes only get in each other's way.
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "LP_NUM_THREADS"):
        os.environ.setdefault(name, "1")
    context = multiprocessing.get_context("spawn")
    reports = context.Queue()
    processes = [
        context.Process(target=_work, args=(out, share, speech, assets, size, with_pictures, reports), daemon=True)
        for share in share_out(specs, workers)
    ]
    for process in processes:
        process.start()
    running = len(processes)
    with tqdm(total=sum(spec.n_frames for spec in specs), unit="frame", mininterval=5) as progress:
        while running:
            try:
                report = reports.get(timeout=5)
            except queue.Empty:
                if any(process.exitcode for process in processes):  # died without a word
                    report = "it ended early"
                else:
                    continue
            if isinstance(report, str):
                for process in processes:
                    process.terminate()
                raise RuntimeError(f"a worker failed: {report}")
            if report is None:
                running -= 1
            else:
                progress.update(report)
    for process in processes:
        process.join()


def write_sheet(folder: Path, names: Sequence[str], path: Path, columns: int = 10, step: int = 3) -> None:
    """Write a contact sheet: a row a take, every `step`-th frame from its first speech on, phones below.

    Raises:
        ValueError: if there are no takes.
    """
    from PIL import Image, ImageDraw

    if not names:
        raise ValueError(f"{folder} holds no finished takes")
    rows = []
    for name in names:
        shard = shards.read(folder, name)
        assert shard.frames is not None
        speaking = np.flatnonzero(shard.face.sum(1) > 0.1)
        first = max(int(speaking[0]) - 2, 0) if len(speaking) else 0
        cells = []
        for frame in range(first, min(first + columns * step, len(shard.frames)), step):
            picture = Image.fromarray(shard.frames[frame])
            middle_s = (frame + 0.5) / FPS
            heard = [p[0] for p in shard.description["phones"] if p[1] <= middle_s < p[1] + p[2]]
            label = f"{frame} {' '.join(heard) or '-'}{' SHUT' if shard.closure[frame] > 0.5 else ''}"
            ImageDraw.Draw(picture).text((4, 2), label, fill=(255, 0, 0))
            cells.append(np.asarray(picture))
        blank = np.zeros_like(shard.frames[0])
        rows.append(np.concatenate(cells + [blank] * (columns - len(cells)), axis=1))
    Image.fromarray(np.concatenate(rows, axis=0)).save(path)
