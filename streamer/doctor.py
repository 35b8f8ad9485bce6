"""`infinity-avatar doctor`: what works on this machine, in words, and what to do about what does not."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import json
import os
import socket
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from fractions import Fraction
from importlib import metadata
from pathlib import Path
from typing import Literal, TextIO

from models.gallery import WEIGHTS_ROOT, list_avatars
from models.timing import FPS as REAL_TIME_FPS
from streamer.errors import AvatarError
from streamer.media.ice_servers import IceServer
from streamer.presenters import preset_frame_size
from streamer.server.options import ServerOptions

Verdict = Literal["ok", "warning", "missing"]
STUN_TIMEOUT_S = 2.0
ENGINE_TIMEOUT_S = 120.0
_PROBE_SIZE = 256


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        state: "ok"; "warning": something works less well or not at all, the rest does; "missing": nothing does.
        found: what is there, in words.
        advice: what to do about it; empty if there is nothing to do.
    """

    name: str
    state: Verdict
    found: str
    advice: str = ""


def examine(options: ServerOptions) -> Iterator[Finding]:
    """Looks at everything, one after the other, cheap things first."""
    yield _python()
    yield _torch()
    yield from _codecs()
    yield _voice()
    yield _public_weights()
    yield _gallery(options.preset)
    yield _port(options.host, options.port)
    yield _microphone(options.host)
    yield _udp()
    for server in options.ice_servers:
        yield _ice(server)
    if not options.ice_servers:
        yield Finding(
            "ICE servers",
            "ok",
            "none given; clients on this machine and in this network need none",
            "for clients behind other routers: --ice-server stun:HOST:PORT, and a turn: server where UDP is blocked",
        )
    for preset in _presets(options):
        yield _speed(options, preset)


def print_findings(findings: Iterator[Finding], is_json: bool, stream: TextIO) -> int:
    """Prints findings as they come, or as one JSON list; returns the exit code: 1 if something essential is missing."""
    seen = []
    for finding in findings:
        seen.append(finding)
        if not is_json:
            sign = {"ok": "ok  ", "warning": "warn", "missing": "FAIL"}[finding.state]
            print(f"{sign}  {finding.name}: {finding.found}", file=stream)
            if finding.advice:
                print(f"      -> {finding.advice}", file=stream)
            stream.flush()
    if is_json:
        print(json.dumps([asdict(finding) for finding in seen], indent=2), file=stream)
    return int(any(finding.state == "missing" for finding in seen))


def _python() -> Finding:
    version = ".".join(map(str, sys.version_info[:3]))
    loop = "with uvloop" if importlib.util.find_spec("uvloop") else "without uvloop"
    advice = "" if "without" not in loop else "pip install uvloop: sound packets leave more evenly"
    return Finding("Python", "ok", f"{version}, {loop}, {_cores()} cores", advice)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _torch() -> Finding:
    try:
        version = metadata.version("torch")
    except metadata.PackageNotFoundError:
        return Finding("torch", "missing", "not installed", "pip install torch (any build from 2.11 on)")
    if not Path("/dev/nvidiactl").exists():
        return Finding("torch", "ok", f"{version}; no NVIDIA device here")
    if "+cpu" in version:
        advice = "this machine has an NVIDIA device: install torch's CUDA build, then --device cuda"
        return Finding("torch", "warning", f"{version}, the build for CPUs", advice)
    return Finding("torch", "ok", f"{version}; there is an NVIDIA device: try --device cuda")


def _codecs() -> Iterator[Finding]:
    """Encoders by opening them: being listed says nothing."""
    opened = {name: _opens(name) for name in ("libx264", "libvpx", "h264_nvenc", "libopus")}
    advice = "reinstall PyAV from its wheel: pip install --force-reinstall av"
    if opened["libopus"]:
        yield Finding("sound encoder", "ok", "libopus opens")
    else:
        yield Finding("sound encoder", "missing", "libopus does not open", advice)
    works = [name for name, is_open in opened.items() if is_open and name != "libopus"]
    fails = [name for name, is_open in opened.items() if not is_open and name != "libopus"]
    found = f"{', '.join(works) or 'none'} open{'s' if len(works) == 1 else ''}"
    found += f"; not here: {', '.join(fails)}" if fails else ""
    if not {"libx264", "libvpx"} & set(works):
        yield Finding("picture encoders", "missing", found, advice)
    elif {"libx264", "libvpx"} <= set(works):
        yield Finding("picture encoders", "ok", found)
    else:
        yield Finding("picture encoders", "warning", f"{found}: some browsers will get no picture", advice)


def _opens(name: str) -> bool:
    import av

    try:
        encoder = av.CodecContext.create(name, "w")
        if name == "libopus":
            encoder.sample_rate, encoder.layout, encoder.format = 48_000, "mono", "s16"  # type: ignore[attr-defined]
        else:
            encoder.width = encoder.height = _PROBE_SIZE  # type: ignore[attr-defined]
            encoder.pix_fmt = "yuv420p"  # type: ignore[attr-defined]
            encoder.time_base = Fraction(1, REAL_TIME_FPS)
        encoder.open()
    except (av.error.FFmpegError, ValueError, OSError):
        return False
    return True


def _voice() -> Finding:
    if importlib.util.find_spec("hibari") is None:
        advice = "pip install 'infinity-avatar[say]'"
        return Finding("voice", "warning", "not installed: texts cannot be spoken", advice)
    return Finding("voice", "ok", f"hibari-tts {metadata.version('hibari-tts')}, English, offline")


def _public_weights() -> Finding:
    """Whether the packages are there that some families of public weights need."""
    missing = [name for name in ("transformers", "peft") if not importlib.util.find_spec(name)]
    if missing:
        advice = "only for public weights: pip install 'infinity-avatar[public]'"
        return Finding("public weights", "ok", f"not all of them can be run without {', '.join(missing)}", advice)
    found = "what they need is installed; infinity-avatar models check PATH says what a folder is"
    return Finding("public weights", "ok", found)


def _gallery(preset: str) -> Finding:
    names = [avatar.name for avatar in list_avatars() if avatar.preset == preset]
    if names:
        return Finding("presenters", "ok", ", ".join(names))
    return Finding("presenters", "warning", f"none for {preset}", "choose a preset that has weights: portrait-512")


def _port(host: str, port: int) -> Finding:
    from streamer.server.serve import listen

    name = f"port {port} at {host}"
    try:
        listen(host, port).close()
    except AvatarError as error:
        return Finding(name, "missing", str(error).split(";")[0], str(error).split("; ")[-1])
    return Finding(name, "ok", "free")


def _microphone(host: str) -> Finding:
    if host in ("127.0.0.1", "localhost", "::1"):
        return Finding("microphone", "ok", "browsers on this machine allow it at http://localhost")
    return Finding(
        "microphone",
        "warning",
        "browsers on other machines allow it only over HTTPS; at http:// the page speaks texts and files alone",
        "put a proxy with TLS in front (see docs/serving.md)",
    )


def _udp() -> Finding:
    """Sends a datagram to an own address of an interface: media goes there, not over 127.0.0.1."""
    address = interface_address()
    if address is None:
        return Finding(
            "UDP",
            "missing",
            "no network interface with an address besides 127.0.0.1: WebRTC finds no way",
            "connect a network, or add an address: ip address add 192.0.2.1/32 dev lo",
        )
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ours, socket.socket(type=socket.SOCK_DGRAM) as peer:
            ours.bind((address, 0))
            ours.settimeout(STUN_TIMEOUT_S)
            peer.sendto(b"doctor", ours.getsockname())
            ours.recv(16)
    except OSError as error:
        advice = "allow UDP in the firewall of this machine"
        return Finding("UDP", "missing", f"no datagram reaches {address}: {error}", advice)
    return Finding("UDP", "ok", f"datagrams reach {address}")


def interface_address() -> str | None:
    """An IPv4 address of this machine besides 127.0.0.1; None if there is none."""
    from aioice.ice import get_host_addresses

    found = get_host_addresses(use_ipv4=True, use_ipv6=False)
    return next((address for address in found if not address.startswith("127.")), None)


def _ice(server: IceServer) -> Finding:
    host, port = server.address
    name = f"ICE server {server.url}"
    is_stream = server.url.startswith(("stuns:", "turns:")) or server.url.endswith("transport=tcp")
    try:
        if is_stream:
            with contextlib.closing(socket.create_connection((host, port), STUN_TIMEOUT_S)):
                return Finding(name, "ok", "takes TCP connections")
        seen = stun_address(host, port)
    except (OSError, ValueError) as error:
        advice = "check host, port and firewall; without it clients behind other routers find no way"
        return Finding(name, "warning", f"no answer: {error or type(error).__name__}", advice)
    return Finding(name, "ok", f"answers; sees this machine as {seen}")


def stun_address(host: str, port: int) -> str:
    """Asks a STUN server over UDP how it sees us; TURN servers answer as well.

    Raises:
        OSError: if nothing answers, twice.
        ValueError: if the answer is none.
    """
    from aioice import stun

    request = stun.Message(stun.Method.BINDING, stun.Class.REQUEST)
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
    with socket.socket(family, kind, protocol) as asking:
        asking.settimeout(STUN_TIMEOUT_S / 2)
        for attempt in range(2):
            asking.sendto(bytes(request), address)
            try:
                answer = asking.recv(1500)
                break
            except TimeoutError:
                if attempt:
                    raise
    return _mapped_address(answer, request.transaction_id)


def _mapped_address(answer: bytes, transaction: bytes) -> str:
    """How the server sees us, of its answer to that transaction, as host:port.

    Raises:
        ValueError: if it does not say.
    """
    from aioice import stun

    message = stun.parse_message(answer)
    if message.transaction_id != transaction or "XOR-MAPPED-ADDRESS" not in message.attributes:
        raise ValueError("the answer is no STUN binding response")
    host, port = message.attributes["XOR-MAPPED-ADDRESS"]
    return f"{host}:{port}"


def _presets(options: ServerOptions) -> list[str]:
    """Those with weights here; the one that was asked for first."""
    shipped = sorted(path.parent.name for path in WEIGHTS_ROOT.glob("*/config.json"))
    return [options.preset, *(name for name in shipped if name != options.preset)]


def _speed(options: ServerOptions, preset: str) -> Finding:
    """Starts the engine as the server does, which measures itself, and stops it again."""
    from streamer.engine import Engine, EngineConfig

    weights = options.weights if preset == options.preset else None
    is_asked = preset == options.preset

    async def measure() -> tuple[float, tuple[int, int]]:
        config = EngineConfig(preset=preset, weights=weights, device=options.device, threads=options.threads)
        async with asyncio.timeout(ENGINE_TIMEOUT_S), await Engine.launch(config) as engine:
            return engine.facts.warm_rtf, engine.facts.frame_size

    name = f"speed of {preset} on {options.device}"
    try:
        preset_frame_size(preset)
        rtf, (height, width) = asyncio.run(measure())
    except (AvatarError, ValueError, TimeoutError) as error:
        found = str(error) or f"not ready within {ENGINE_TIMEOUT_S:.0f} s"
        advice = "choose another --preset or --device; portrait-512 on cpu comes with the package"
        return Finding(name, "missing" if is_asked else "warning", found, advice)
    fps = REAL_TIME_FPS / rtf if rtf > 0 else 1000.0
    found = f"{min(fps, 999):.0f} frames a second of {width}x{height}, {REAL_TIME_FPS} are real time"
    if rtf <= 0.9:
        return Finding(name, "ok", found)
    advice = "fewer programs beside it, more cores, or a GPU; until then the picture gets simpler, not slower"
    return Finding(name, "warning", found, advice)
