"""What the subcommands do, with every argument already parsed."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, TypeVar

from streamer.errors import InputError, MissingExtraError, OutputError
from streamer.presenter_files import SUFFIX, read_presenter
from streamer.presenters import find_avatar, preset_frame_size

if TYPE_CHECKING:
    import argparse

    import numpy as np

    from models.presenter import Presenter as MadePresenter
    from streamer.audio_in import SoundSource
    from streamer.mark import Mark
    from streamer.render import Pipeline, RenderTimes
    from streamer.server.options import ServerOptions

DEFAULT_PRESET = "portrait-512"  # of a picture that is none of the gallery's
TOKEN_VARIABLE = "INFINITY_AVATAR_TOKEN"
ICE_VARIABLE = "INFINITY_AVATAR_ICE_SERVERS"  # with spaces between them
TURN_SECRET_VARIABLE = "INFINITY_AVATAR_TURN_SECRET"

Options = TypeVar("Options", bound="ServerOptions")


@dataclass(frozen=True)
class RenderJob:
    """A rendering as the command line describes it.

    Attributes:
        avatar: name of a gallery presenter; None together with no `reference` means the first one.
        reference: picture of somebody else instead, or a presenter made of one.
        prompt: None means the avatar's own.
        preset: None means the avatar's own.
        out: None means a name made of the sound's and the avatar's in the current folder.
        mark: None for no visible mark.
        threads: of torch; None leaves its choice.
        precision: see `AvatarPipeline.load`.
        chunk_latents: of a step, where the model leaves a choice.
        model, model_size: a folder of public weights in the place of the preset, and the side of its frames, pixels.
    """

    avatar: str | None = None
    reference: Path | None = None
    prompt: str | None = None
    seed: int = 0
    preset: str | None = None
    weights: Path | None = None
    device: str = "cpu"
    threads: int | None = None
    precision: str = "auto"
    chunk_latents: int = 3
    model: Path | None = None
    model_size: int = 512
    out: Path | None = None
    report: Path | None = None
    sheet: Path | None = None
    mark: Mark | None = None


@dataclass(frozen=True)
class Presenter:
    """Who is shown, by which preset. made: what `picture` holds, where it is a presenter that was made before."""

    name: str
    picture: Path
    preset: str
    prompt: str
    made: MadePresenter | None = None


def print_avatars(is_json: bool, stream: TextIO) -> None:
    """Lists the gallery: a line a presenter, or a JSON list of {name, picture, preset, ...}."""
    from models.gallery import list_avatars

    avatars = list_avatars()
    if is_json:
        entries = [{**asdict(avatar), "picture": str(avatar.picture)} for avatar in avatars]
        print(json.dumps(entries, indent=2), file=stream)
        return
    width = max((len(avatar.name) for avatar in avatars), default=0)
    for avatar in avatars:
        print(f"{avatar.name:<{width}}  {avatar.preset}  {avatar.description}", file=stream)
    if not avatars:
        print("the gallery is empty: no weights are installed", file=sys.stderr)


def run_render(job: RenderJob, open_source: Callable[[], SoundSource], stream: TextIO) -> Path:
    """Renders a job and prints one line about it.

    Everything that can be wrong with the input is looked at before the models are loaded.

    Args:
        open_source: opens the sound.
        stream: where the line goes.

    Returns:
        The finished file.

    Raises:
        AvatarError: with one sentence for the user.
    """
    from streamer.video_out import check_writable

    source = open_source()
    presenter = choose_presenter(job)
    out = job.out or Path(f"{source.name}-{presenter.name}.mp4")
    _check_not_overwriting(out, source, presenter)
    check_writable(out, ".mp4")
    if job.report is not None:
        check_writable(job.report, ".json")
    if job.sheet is not None:
        check_writable(job.sheet, ".png")
    picture = _load_picture(job, presenter)
    pipeline = load_pipeline(job, presenter.preset)
    times = _render_file(job, presenter, pipeline, source, picture, out)
    seconds = times.frames / pipeline.fps
    print(f"{out}: {seconds:.2f} s, {times.frames} frames, {_speed(times, pipeline.fps)}", file=stream)
    return out


def choose_presenter(job: RenderJob) -> Presenter:
    """The gallery presenter or the picture a job asks for.

    Raises:
        UnknownAvatarError: if the gallery has no such name, or is empty.
        PictureError: if a presenter's file cannot be read.
    """
    chosen = job.preset if job.model is None else job.model.resolve().name
    if job.reference is not None:
        made = None
        if job.reference.suffix == SUFFIX:
            made = read_presenter(job.reference)
            chosen = chosen or _portrait_preset(made.size)
        return Presenter(job.reference.stem, job.reference, chosen or DEFAULT_PRESET, job.prompt or "", made)
    from models.gallery import list_avatars

    avatar = find_avatar(job.avatar, list_avatars())
    prompt = avatar.prompt if job.prompt is None else job.prompt
    return Presenter(avatar.name, avatar.picture, chosen or avatar.preset, prompt)


def _portrait_preset(size: tuple[int, int]) -> str:
    from models.families import portrait_preset

    try:
        return portrait_preset(size)
    except ValueError as error:
        raise InputError(str(error)) from error


def _load_picture(job: RenderJob, presenter: Presenter) -> np.ndarray | MadePresenter:
    """The picture as the models want it: a portrait is cut by the face that is found in it, later."""
    from models.families import is_portrait
    from streamer.picture import MOST_SIDE_PIXELS, load_picture, read_rgb

    if presenter.made is not None:
        if job.model is not None or not is_portrait(presenter.preset):
            raise InputError(f"{presenter.picture} is a presenter of portraits; {presenter.preset} needs a picture")
        return presenter.made
    if job.model is not None:
        return load_picture(presenter.picture, job.model_size, job.model_size)
    if is_portrait(presenter.preset):
        return read_rgb(presenter.picture, MOST_SIDE_PIXELS)
    return load_picture(presenter.picture, *preset_frame_size(presenter.preset))


def load_pipeline(job: RenderJob, preset: str) -> Pipeline:
    """The models of a job on its device: those of the preset, or of a folder of public weights.

    Raises:
        InputError: if the weights do not fit, or there is no such device.
    """
    import torch

    if job.threads is not None:
        import cv2

        torch.set_num_threads(job.threads)
        cv2.setNumThreads(job.threads)
    try:
        chosen = torch.device(job.device)
    except RuntimeError as error:
        raise InputError(f"there is no device {job.device!r}; try cpu or cuda") from error
    if chosen.type == "cuda" and not torch.cuda.is_available():
        raise InputError("there is no CUDA device here; leave --device at cpu")
    try:
        if job.model is not None:
            from models.public.loading import load_public

            return load_public(job.model, job.device, job.precision, frame_size=(job.model_size, job.model_size))
        from models.families import load_model

        return load_model(preset, job.weights, job.device, job.precision)
    except ValueError as error:
        raise InputError(f"cannot load the models: {error}") from error


def run_serve(arguments: argparse.Namespace, stream: TextIO) -> None:
    """Serves until it is stopped; see `streamer.server.serve`.

    Raises:
        AvatarError: with one sentence for the user.
    """
    _need_server_extra()
    from streamer.mark import Mark
    from streamer.media.network import Network, parse_ports
    from streamer.server.serve import ServeOptions, run_server

    ports = arguments.udp_ports
    try:
        network = Network(
            addresses=tuple(arguments.media_host),
            ports=None if ports is None else parse_ports(ports),
            public_address=arguments.public_address,
        )
    except ValueError as error:
        raise InputError(str(error)) from error
    options = _server_options(
        ServeOptions,
        arguments,
        avatar=arguments.avatar,
        max_sessions=arguments.max_sessions,
        token=arguments.token or os.environ.get(TOKEN_VARIABLE) or None,
        public_hosts=tuple(arguments.public_host),
        is_behind_proxy=arguments.behind_proxy,
        limits=dict(arguments.limit),
        longest_session_s=None if arguments.longest_session is None else 60.0 * arguments.longest_session,
        cors_origins=tuple(arguments.cors_origin),
        chunk_latents=arguments.chunk,
        model=arguments.model,
        model_size=arguments.model_size,
        has_graphs=arguments.graphs,
        has_fp8=arguments.fp8,
        is_test_pattern=arguments.test_pattern,
        mark=None if arguments.no_mark else Mark(),
        network=network,
    )
    run_server(options, stream)


def run_doctor(arguments: argparse.Namespace, stream: TextIO) -> int:
    """Says what works here; returns the exit code.

    Raises:
        AvatarError: with one sentence for the user.
    """
    _need_server_extra()
    from streamer.doctor import examine, print_findings
    from streamer.server.options import ServerOptions

    return print_findings(examine(_server_options(ServerOptions, arguments)), arguments.json, stream)


def _server_options(kind: type[Options], arguments: argparse.Namespace, **more: Any) -> Options:
    """The options that `serve` and `doctor` have in common, and more of them."""
    from streamer.media.ice_servers import IceServer

    try:
        named = arguments.ice_server or os.environ.get(ICE_VARIABLE, "").split()
        secret = arguments.turn_secret or os.environ.get(TURN_SECRET_VARIABLE) or None
        ice_servers = tuple(IceServer.parse(text, secret) for text in named)
    except ValueError as error:
        raise InputError(str(error)) from error
    return kind(
        host=arguments.host,
        port=arguments.port,
        preset=arguments.preset,
        weights=arguments.weights,
        device=arguments.device,
        threads=arguments.threads,
        ice_servers=ice_servers,
        **more,
    )


def _need_server_extra() -> None:
    from importlib.util import find_spec

    wanted = ("aiohttp", "aiortc", "prometheus_client", "pydantic", "webrtcvad")
    missing = [name for name in wanted if not find_spec(name)]
    if missing:
        raise MissingExtraError(f"the server needs {', '.join(missing)}: pip install 'infinity-avatar[serve]'")


def _render_file(
    job: RenderJob,
    presenter: Presenter,
    pipeline: Pipeline,
    source: SoundSource,
    picture: np.ndarray | MadePresenter,
    out: Path,
) -> RenderTimes:
    """Renders into the file, then writes sheet and report."""
    from tqdm import tqdm

    from streamer.mark import MarkStamp
    from streamer.render import RenderOptions, render
    from streamer.report import build_report, package_version, write_report
    from streamer.sheet import ContactSheet
    from streamer.video_out import VideoWriter

    options = RenderOptions(presenter.prompt, job.seed, job.chunk_latents, job.report is not None)
    stamp = None if job.mark is None else MarkStamp(job.mark, *pipeline.frame_size)
    sheet = None if job.sheet is None else ContactSheet(fps=pipeline.fps)
    total = None if source.duration_s is None else math.ceil(source.duration_s * pipeline.fps)
    made_by = f"version {package_version()}, preset {presenter.preset}, avatar {presenter.name}"
    with (
        VideoWriter(out, *pipeline.frame_size, fps=pipeline.fps, made_by=made_by) as writer,
        tqdm(total=total, unit="frame", desc=out.name, disable=None, leave=False) as bar,
    ):

        def on_frames(frames: np.ndarray) -> None:
            bar.update(len(frames))
            if sheet is not None:
                sheet.add(frames)

        times = render(pipeline, source, picture, writer, options, stamp, on_frames)
    if sheet is not None and job.sheet is not None:
        sheet.save(job.sheet)
    if job.report is not None:
        report = build_report(times, fps=pipeline.fps, frame_size=pipeline.frame_size, device=str(pipeline.device))
        report |= {"preset": presenter.preset, "avatar": presenter.name, "seed": job.seed, "file": str(out)}
        write_report(job.report, report)
    return times


def _speed(times: RenderTimes, fps: int) -> str:
    first = 1 if len(times.chunk_s) > 1 else 0
    return f"RTF {sum(times.chunk_s[first:]) / sum(times.chunk_frames[first:]) * fps:.2f}"


def _check_not_overwriting(out: Path, source: SoundSource, presenter: Presenter) -> None:
    from streamer.audio_in import AudioFile

    read = [presenter.picture] + ([source.path] if isinstance(source, AudioFile) else [])
    for path in read:
        if out.exists() and path.exists() and out.samefile(path):
            raise OutputError(f"cannot write {out}: it is read for this rendering")
