"""Pictures that users bring: examined, kept for a while under a name that cannot be guessed, and gone.

A picture is decoded in one process, which may die of it, and looked at in another, which stays. On the disk it is one
folder of this server's run, which is removed when it ends; the next start removes what a killed one left.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image

from models.gallery import Avatar
from streamer.child import ChildChannel, ChildProcess
from streamer.child.arrays import array_file, read_array
from streamer.errors import CapacityError, ChildError, ChildLost, PictureError, UnknownAvatarError
from streamer.uploads import examiner
from streamer.uploads.client import Uploads

READY_TIMEOUT_S, ANSWER_TIMEOUT_S = 120.0, 30.0
MAX_TRIES = 2
PREFIX = "own-"
FOLDER_PREFIX = "infinity-avatar-pictures-"


class PictureRefused(PictureError):
    """No avatar can be made of a picture. checks: what was found, {name, verdict, advice} each."""

    def __init__(self, checks: list[dict[str, str]]) -> None:
        super().__init__(next(check["advice"] for check in checks if check["verdict"] == "refused"))
        self.checks = checks


@dataclass(frozen=True)
class OwnPicture:
    """A picture that was taken. expires_s: monotonic seconds."""

    avatar: Avatar
    checks: list[dict[str, str]]
    expires_s: float


class OwnPictures:
    """All pictures that users have brought to this server.

    Args:
        uploads: decodes them.
        size: height and width of the engine's frames.
        preset: of the engine.
        life_s: how long one is kept after it was brought.
        most: at once; the oldest goes when there are more.
        target: what the examining process runs.
    """

    def __init__(
        self,
        uploads: Uploads,
        size: tuple[int, int],
        preset: str,
        life_s: float = 24 * 3600.0,
        most: int = 500,
        target: Callable[[ChildChannel], None] = examiner.run,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.life_s = life_s
        self._uploads, self._size, self._preset, self._most = uploads, size, preset, most
        self._target, self._now = target, now
        self._kept: dict[str, OwnPicture] = {}
        self._turn = asyncio.Lock()  # of the examining process
        self._waiting = 0
        self._child: ChildProcess | None = None
        self._folder: Path | None = None

    async def warm_up(self) -> None:
        """Start the examining process, so that the first picture need not wait for it."""
        async with self._turn:
            with contextlib.suppress(ChildError):
                await self._running()

    async def add(self, file: IO[bytes]) -> OwnPicture:
        """Take a picture file, which stays open.

        Raises:
            PictureError: if it is no picture. PictureRefused: if no avatar can be made of it, with the doctor's words.
            CapacityError: if too many wait to be looked at.
        """
        if self._waiting >= 8:
            raise CapacityError("Many pictures are being looked at now; try again in a moment.")
        self._waiting += 1
        try:
            picture = await self._uploads.decode_picture(file)
            checks, cut = await self._examine(picture)
        finally:
            self._waiting -= 1
        if cut is None:
            raise PictureRefused(checks)
        name = PREFIX + secrets.token_urlsafe(18)
        path = await asyncio.to_thread(self._write, name, cut)
        avatar = Avatar(name, path, self._preset, "A picture of your own.", "")
        self._sweep()
        kept = self._kept[name] = OwnPicture(avatar, checks, self._now() + self.life_s)
        return kept

    def get(self, name: str) -> Avatar:
        """The avatar of a picture, to whoever knows its name.

        Raises:
            UnknownAvatarError: if there is none (any more).
        """
        self._sweep()
        kept = self._kept.get(name)
        if kept is None:
            raise UnknownAvatarError("There is no such picture; it may have expired.")
        return kept.avatar

    def remove(self, name: str) -> None:
        """Forget a picture; sessions that show it go on.

        Raises:
            UnknownAvatarError: if there is none (any more).
        """
        self.get(name)
        self._drop(name)

    async def close(self) -> None:
        """End the process and remove everything. Idempotent."""
        if self._child is not None:
            await self._child.end()
        self._kept.clear()
        if self._folder is not None:
            await asyncio.to_thread(shutil.rmtree, self._folder, ignore_errors=True)

    def _sweep(self) -> None:
        for name in [name for name, kept in self._kept.items() if kept.expires_s <= self._now()]:
            self._drop(name)
        while len(self._kept) >= self._most:
            self._drop(next(iter(self._kept)))

    def _drop(self, name: str) -> None:
        self._kept.pop(name).avatar.picture.unlink(missing_ok=True)

    def _write(self, name: str, picture: np.ndarray) -> Path:
        if self._folder is None:
            for left in Path(tempfile.gettempdir()).glob(f"{FOLDER_PREFIX}*"):
                if not _is_alive(left.name.removeprefix(FOLDER_PREFIX).partition("-")[0]):
                    shutil.rmtree(left, ignore_errors=True)
            self._folder = Path(tempfile.mkdtemp(prefix=f"{FOLDER_PREFIX}{os.getpid()}-"))
        path = self._folder / f"{name}.png"
        Image.fromarray(picture).save(path)
        return path

    async def _examine(self, picture: np.ndarray) -> tuple[list[dict[str, str]], np.ndarray | None]:
        # shielded: a process whose answer is not waited for would have to be ended, and others use it
        work = asyncio.ensure_future(self._ask(picture))
        work.add_done_callback(lambda done: done.cancelled() or done.exception())
        return await asyncio.shield(work)

    async def _ask(self, picture: np.ndarray) -> tuple[list[dict[str, str]], np.ndarray | None]:
        wanted = examiner.Examine(picture.shape[0], picture.shape[1], *self._size)
        async with self._turn:
            for _ in range(MAX_TRIES):
                with contextlib.suppress(ChildLost):
                    child = await self._running()
                    answer, descriptors = await child.ask(wanted, ANSWER_TIMEOUT_S, [array_file(picture)])
                    cut = None if answer.is_refused else read_array(descriptors[0], (*self._size, 3), "uint8")
                    return answer.checks, cut
        raise PictureError("the picture cannot be looked at")

    async def _running(self) -> ChildProcess:
        if self._child is not None and self._child.is_running:
            return self._child
        if self._child is not None:
            await self._child.end()
        self._child = ChildProcess("the examiner of pictures", self._target, (), examiner.MESSAGES)
        await self._child.start(READY_TIMEOUT_S)
        return self._child


def _is_alive(pid: str) -> bool:
    return pid.isdigit() and Path(f"/proc/{pid}").exists()
