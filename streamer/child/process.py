"""A child process: started, asked, watched and ended without holding up the event loop."""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import resource
import signal
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any

from streamer.child.channel import ChildChannel, Failed, Kinds, Log, ParentChannel, close_all
from streamer.errors import ChildError, ChildLost

log = logging.getLogger(__name__)
MAX_LOG_CHARACTERS = 8000
_END_S = 1.0  # for the child to end by itself, before it is made to


@dataclass(frozen=True)
class Limits:
    """What a child may use; the system holds it to that.

    Attributes:
        memory_bytes: of address space, beyond what its imports took.
        file_bytes: of any file that it writes, unnamed ones too.
    """

    memory_bytes: int
    file_bytes: int


Target = Callable[..., None]


class ChildProcess:
    """One child process and the channel to it.

    Args:
        name: of the process, in the system and in errors.
        target: a function of a module, called in the child with its `ChildChannel` and `args`. Its first message says
            that it is ready. An exception of it is told to the parent, in the exception's words.
        args: are pickled.
        kinds: of messages in both directions.
        limits: of the child; None for none.
        on_message: is given what the child says unasked once it is ready, with descriptors, which it closes.
        on_end: is called once if the child ends after it was ready; not by `end`.
    """

    def __init__(
        self,
        name: str,
        target: Target,
        args: tuple[Any, ...],
        kinds: Kinds,
        *,
        limits: Limits | None = None,
        on_message: Callable[[Any, list[int]], None] = lambda message, descriptors: close_all(descriptors),
        on_end: Callable[[], None] = lambda: None,
    ) -> None:
        self.name = name
        self._work = (target, args, kinds, limits)
        self._kinds = kinds
        self._on_message, self._on_end = on_message, on_end
        self._process: multiprocessing.process.BaseProcess | None = None
        self._channel: ParentChannel | None = None
        self._answer: asyncio.Future[tuple[Any, list[int]]] | None = None  # that is waited for
        self._is_ready = False

    @property
    def is_running(self) -> bool:
        """Whether it was started and has not ended yet."""
        return self._channel is not None and self._channel.is_open

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    async def start(self, timeout_s: float) -> Any:
        """Start the child and wait until it is ready; its first message.

        Raises:
            ChildLost: if it does not come up; it is gone then.
            ChildError: if it says why it cannot.
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._channel = ParentChannel(ours, self._kinds, self._take, self._ended)
        try:
            try:
                await _uninterrupted(self._spawn(theirs))
            finally:
                theirs.close()
            message, descriptors = await self._next(timeout_s)
            close_all(descriptors)
            self._is_ready = True
            return message
        except TimeoutError:
            await _uninterrupted(self.end())
            raise ChildLost(f"{self.name} was not ready within {timeout_s:g} s") from None
        except BaseException as error:
            await _uninterrupted(self.end())
            if isinstance(error, OSError):
                raise ChildLost(f"{self.name} cannot be started: {error}") from error
            raise

    async def _spawn(self, connection: socket.socket) -> None:
        self._process = await asyncio.to_thread(_spawn, self.name, connection, self._work)

    def send(self, message: Any, descriptors: Sequence[int] = ()) -> None:
        """As `ParentChannel.send`."""
        if self._channel is None:
            close_all(descriptors)
            raise ChildLost(f"{self.name} is not started")
        self._channel.send(message, descriptors)

    async def ask(self, message: Any, timeout_s: float, descriptors: Sequence[int] = ()) -> tuple[Any, list[int]]:
        """Send a message and wait for the next one of the child, with its descriptors. One question at a time.

        A child whose answer is not waited for to the end (a timeout, a cancelled task) is ended.

        Raises:
            ChildLost: if the child ends, or takes longer.
        """
        try:
            self.send(message, descriptors)
            return await self._next(timeout_s)
        except TimeoutError:
            self.kill()
            raise ChildLost(f"{self.name} took longer than {timeout_s:g} s") from None
        except asyncio.CancelledError:
            self.kill()
            raise

    async def _next(self, timeout_s: float) -> tuple[Any, list[int]]:
        if not self.is_running:
            raise ChildLost(f"{self.name} is gone")
        self._answer = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(timeout_s):
                return await self._answer
        finally:
            self._answer = None

    def kill(self) -> None:
        """End the child at once; `on_end` is called."""
        if self._process is not None:
            self._process.kill()

    async def end(self) -> int | None:
        """Close the channel and see the child gone; its exit code. Idempotent."""
        if self._channel is not None and self._channel.is_open:
            self._channel.close()
            self._lose(ChildLost(f"{self.name} is ended"))
        process, self._process = self._process, None
        return None if process is None else await asyncio.to_thread(_reap, process)

    def _take(self, message: Any, descriptors: list[int]) -> None:
        match message:
            case Log(level=level, text=text):
                close_all(descriptors)
                log.log(level, "%s: %s", self.name, text)
            case Failed(message=text):
                close_all(descriptors)
                if not self._lose(ChildError(text)):
                    log.error("%s failed: %s", self.name, text)
            case _ if self._answer is not None and not self._answer.done():
                self._answer.set_result((message, descriptors))
            case _:
                self._on_message(message, descriptors)

    def _ended(self) -> None:
        self._lose(ChildLost(f"{self.name} ended unexpectedly"))
        if self._is_ready:
            self._on_end()

    def _lose(self, error: ChildError) -> bool:
        """Fail what waits for an answer; False if nothing does."""
        if self._answer is None or self._answer.done():
            return False
        self._answer.set_exception(error)
        return True


async def _uninterrupted(work: Any) -> Any:
    """Await something to its end even if the waiting task is cancelled; the cancellation comes after it."""
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError as error:
            if task.cancelled():
                raise
            cancelled = error
        except Exception:  # the task's own, raised below
            break
    if cancelled is not None:
        raise cancelled
    return task.result()


def _spawn(name: str, connection: socket.socket, work: tuple[Any, ...]) -> multiprocessing.process.BaseProcess:
    """Start the child. It is born with SIGINT blocked, until it has chosen to ignore it."""
    resource_tracker.ensure_running()  # here, because it unblocks SIGINT when it starts
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=_run, args=(connection, *work), name=name, daemon=True)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    return process


def _reap(process: multiprocessing.process.BaseProcess) -> int | None:
    """Wait for the child's end, which the closed channel is the sign for; then insist."""
    for insist in (lambda: None, process.terminate, process.kill):
        insist()
        process.join(_END_S)
        if process.exitcode is not None:
            break
    code = process.exitcode
    if code is not None:
        process.close()
    return code


# In the child.


def _run(connection: socket.socket, target: Target, args: tuple[Any, ...], kinds: Kinds, limits: Limits | None) -> None:
    """The child's whole life."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process of the terminal: the parent decides
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    channel = ChildChannel(connection, kinds)
    logger = logging.getLogger()
    logger.handlers = [_ParentHandler(channel)]
    logger.setLevel(logging.INFO)
    logging.captureWarnings(True)
    if limits is not None:
        _hold_to(limits)
    try:
        target(channel, *args)
    except EOFError:
        pass  # the parent is gone, and nobody is left to tell
    except Exception as error:  # whatever it is, the parent must hear it, in words
        logging.info("ended by an exception", exc_info=True)
        channel.send(Failed(str(error) or type(error).__name__))


def _hold_to(limits: Limits) -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0]) if Path("/proc/self/statm").exists() else 0
    memory = pages * resource.getpagesize() + limits.memory_bytes
    for kind, limit in ((resource.RLIMIT_AS, memory), (resource.RLIMIT_FSIZE, limits.file_bytes)):
        resource.setrlimit(kind, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


class _ParentHandler(logging.Handler):
    """Log records go to the parent, which has the handlers."""

    def __init__(self, channel: ChildChannel) -> None:
        super().__init__()
        self._channel = channel

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._channel.send(Log(record.levelno, self.format(record)[:MAX_LOG_CHARACTERS]))
        except EOFError:
            pass
