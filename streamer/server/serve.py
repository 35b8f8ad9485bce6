"""`infinity-avatar serve`: starts engine, voice and web server, and takes all of it down again."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ipaddress
import os
import signal
import socket
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TextIO

from aiohttp import web

from models.gallery import list_avatars
from streamer import log
from streamer.engine import Engine, EngineConfig
from streamer.errors import InputError, OutputError
from streamer.mark import Mark
from streamer.media.network import Network
from streamer.presenters import preset_frame_size, showable
from streamer.server.access import Access
from streamer.server.app import create_app
from streamer.server.limits import Limits
from streamer.server.options import ServerOptions
from streamer.server.routes import Site
from streamer.session.assembly import Assembly
from streamer.session.metrics import Metrics
from streamer.session.registry import Registry, default_max_sessions
from streamer.uploads import OwnPictures, Uploads
from streamer.voice.client import Voice

KEEP_ALIVE_S = 75.0
SHUTDOWN_S = 2.0
MOST_STREAMS = 64
BACKLOG = 128


@dataclass(frozen=True)
class ServeOptions(ServerOptions):
    """The command line of `serve`.

    Attributes:
        chunk_latents: of a chunk, where the model leaves a choice.
        model, model_size: a folder of public weights in the place of the preset, and the side of its frames, pixels.
        max_sessions: None for as many as the engine can serve in real time.
        has_graphs, has_fp8: as in `EngineConfig`.
        is_test_pattern: frames that flash with the sound, without models.
        public_hosts: names by which clients call the server, besides localhost and its address.
        is_behind_proxy: whether `X-Forwarded-*` are a proxy's words, and no client's.
        limits: numbers that differ from `streamer.server.limits.DEFAULTS`.
        longest_session_s: None for no end.
        network: the addresses and ports that media uses.
        page_folder: None for the page that comes with the package.
    """

    avatar: str | None = None
    max_sessions: int | None = None
    token: str | None = None
    cors_origins: tuple[str, ...] = ()
    public_hosts: tuple[str, ...] = ()
    is_behind_proxy: bool = False
    limits: Mapping[str, int] = field(default_factory=dict)
    longest_session_s: float | None = None
    chunk_latents: int = 2
    model: Path | None = None
    model_size: int = 512
    has_graphs: bool = False
    has_fp8: bool = False
    is_test_pattern: bool = False
    mark: Mark | None = field(default_factory=Mark)
    network: Network = field(default_factory=Network)
    page_folder: Path | None = None


def run_server(options: ServeOptions, stream: TextIO) -> None:
    """Serves until SIGINT or SIGTERM; prints one line with the address when it is ready.

    Raises:
        AvatarError: with one sentence, if it cannot start.
    """
    log.set_up()
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(_serve(options, stream))


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    """uvloop's, where it is installed: its timers are much steadier under load."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop
    return uvloop.new_event_loop  # type: ignore[no-any-return]


async def _serve(options: ServeOptions, stream: TextIO) -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()

    def on_signal(number: signal.Signals) -> None:
        stop.set()
        loop.remove_signal_handler(number)  # the second one does not wait for anything

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, on_signal, number)
    async with AsyncExitStack() as stack:
        stopping = asyncio.ensure_future(stop.wait())
        starting = asyncio.ensure_future(start(options, stack))
        try:
            await asyncio.wait((starting, stopping), return_when=asyncio.FIRST_COMPLETED)
            if not starting.done():
                return
            print(f"The avatar is at {starting.result()} (Ctrl-C stops it).", file=stream, flush=True)
            await stopping
        finally:
            for task in (starting, stopping):
                task.cancel()
            await asyncio.gather(starting, stopping, return_exceptions=True)


async def start(options: ServeOptions, stack: AsyncExitStack) -> str:
    """Starts a server and returns its address; closing the stack stops it.

    Raises:
        AvatarError: with one sentence, if it cannot start.
    """
    access, limits, config = _checked(options)
    avatars = list_avatars()
    listening = stack.enter_context(contextlib.closing(listen(options.host, options.port)))
    is_local = ipaddress.ip_address(listening.getsockname()[0]).is_loopback
    voice = Voice()
    stack.push_async_callback(voice.close)
    warming = asyncio.ensure_future(voice.warm_up())  # while the engine loads
    try:
        engine = await Engine.launch(config)
        stack.push_async_callback(engine.close)
        await warming
    finally:
        warming.cancel()
    avatars = showable(avatars, engine.facts.preset)
    metrics = Metrics()
    uploads = Uploads()
    pictures = OwnPictures(uploads, engine.facts.frame_size, engine.facts.preset)
    stack.push_async_callback(pictures.close)
    assembly = Assembly(
        engine,
        voice,
        metrics,
        avatars,
        default_avatar=options.avatar,
        chunk_latents=options.chunk_latents,
        ice_servers=options.ice_servers,
        longest_session_s=options.longest_session_s,
        network=replace(options.network, is_local=is_local),
        uploads=uploads,
        pictures=pictures,
    )
    most = options.max_sessions or min(default_max_sessions(engine.facts.warm_rtf), config.max_streams)
    registry = Registry(
        assembly.build, assembly.choose, metrics, most, assembly.times.chunk_s, limits.numbers["unseen"]
    )
    metrics.watch(lambda: [session.figures for session in registry], lambda: engine.restarts)
    site = Site(registry, metrics, avatars, list(options.ice_servers), limits, lambda: engine.state, pictures)
    runner = web.AppRunner(
        create_app(site, access, options.page_folder),
        access_log=None,
        auto_decompress=False,
        keepalive_timeout=KEEP_ALIVE_S,
        shutdown_timeout=SHUTDOWN_S,
    )
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    stack.push_async_callback(registry.close)  # first: it says good-bye over what the runner would cut
    await web.SockSite(runner, listening).start()
    return address_of(options.host, listening)


def _checked(options: ServeOptions) -> tuple[Access, Limits, EngineConfig]:
    """What can be wrong with the options, found before anything is started.

    Raises:
        InputError: with one sentence.
    """
    if not options.is_test_pattern and options.model is None:
        preset_frame_size(options.preset)
    for address in options.network.addresses:
        listen(address, 0, socket.SOCK_DGRAM).close()
    try:
        config = EngineConfig(
            preset=options.preset,
            weights=options.weights,
            device=options.device,
            model=options.model,
            model_size=options.model_size,
            has_graphs=options.has_graphs,
            has_fp8=options.has_fp8,
            threads=options.threads or _spare_threads(),
            pipeline="test-pattern" if options.is_test_pattern else "avatar",
            max_streams=options.max_sessions or MOST_STREAMS,
            mark=options.mark,
        )
        hosts = [*options.public_hosts, *([options.host] if options.host not in ("", "0.0.0.0", "::") else [])]
        if options.is_behind_proxy and not options.public_hosts:
            raise ValueError("behind a proxy the server has to be told by which name it is called: --public-host NAME")
        access = Access(options.token, options.cors_origins, hosts, options.is_behind_proxy)
        return access, Limits(options.limits), config
    except ValueError as error:
        raise InputError(str(error)) from error


def _spare_threads() -> int:
    """Threads for the models: one core is left to codecs, network and the browser that may be on the same machine."""
    return max(1, (os.cpu_count() or 2) - 1)


def listen(host: str, port: int, kind: socket.SocketKind = socket.SOCK_STREAM) -> socket.socket:
    """A bound socket.

    Raises:
        OutputError: if the port is taken or may not be used.
        InputError: if there is no such address here.
    """
    try:
        found = socket.getaddrinfo(host, port, type=kind, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        raise InputError(f"there is no host {host!r}; try 127.0.0.1, or 0.0.0.0 for every address") from error
    family, _, protocol, _, address = found[0]
    listening = socket.socket(family, kind, protocol)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        # Refuse at once what would only show when the models have loaded: bind() lets two of us share a port.
        if kind == socket.SOCK_STREAM:
            listening.listen(BACKLOG)
    except OSError as error:
        listening.close()
        if error.errno == errno.EADDRINUSE:
            raise OutputError(f"port {port} is in use; stop what uses it, or choose another with --port") from error
        if error.errno in (errno.EACCES, errno.EPERM):
            raise OutputError(f"port {port} may not be used; choose one above 1023 with --port") from error
        raise InputError(f"{host} is not an address of this machine; try 127.0.0.1 or 0.0.0.0") from error
    listening.setblocking(False)
    return listening


def address_of(host: str, listening: socket.socket) -> str:
    """What to open in a browser. `localhost` where that leads here: browsers give it a microphone without HTTPS."""
    port = listening.getsockname()[1]
    is_local = host in ("127.0.0.1", "localhost", "0.0.0.0", "::", "::1", "")
    shown = "localhost" if is_local else f"[{host}]" if ":" in host else host
    return f"http://{shown}:{port}"
