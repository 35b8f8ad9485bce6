"""The command `infinity-avatar`: `avatars`, `render`, `say`, `serve`, `models`, `doctor`.

Exit codes: 0 done; 1 it could not be done (output, missing part, a fault of the program, something essential that
`doctor` misses); 2 the input or the arguments cannot be used; 130 stopped by the user.
"""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from models.threads import calm_threads
from streamer.errors import AvatarError, InputError

if TYPE_CHECKING:
    from streamer.commands import RenderJob
    from streamer.mark import Mark

PROGRAM = "infinity-avatar"
TRACEBACK_VARIABLE = "INFINITY_AVATAR_TRACEBACK"
MAX_SEED = 2**31 - 1
SIZES = ("512", "720x1280", "1280x720")  # of portraits, width x height
CORNER_HELP = "top-left, top-right, bottom-left or bottom-right (default)"


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line instead of repeating the usage."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code. Nothing but this function catches broadly."""
    arguments = build_parser().parse_args(argv)
    try:
        return run(arguments)
    except AvatarError as error:
        return _complain(str(error), error.exit_code)
    except KeyboardInterrupt:
        return _complain("stopped; nothing was written", 130)
    except BrokenPipeError:
        # whoever read the output has gone; keep the interpreter from complaining about it again
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        if os.environ.get(TRACEBACK_VARIABLE):
            traceback.print_exc()
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        hint = f"this is a fault of the program; {TRACEBACK_VARIABLE}=1 shows where"
        return _complain(f"{type(error).__name__}: {reason} ({hint})", 1)


def run(arguments: argparse.Namespace) -> int:
    """Carries out parsed arguments; returns the exit code.

    Raises:
        AvatarError: with one sentence for the user.
    """
    calm_threads()
    from streamer.commands import run_doctor, run_render, run_serve

    if arguments.command == "serve":
        run_serve(arguments, sys.stdout)
    elif arguments.command == "doctor":
        return run_doctor(arguments, sys.stdout)
    elif arguments.command == "avatars":
        return _run_avatars(arguments)
    elif arguments.command == "models":
        return _run_models(arguments)
    elif arguments.command == "render":
        from streamer.audio_in import AudioFile

        run_render(render_job(arguments), lambda: AudioFile(arguments.audio), sys.stdout)
    else:
        from streamer.speech import SpokenText

        run_render(render_job(arguments), lambda: SpokenText(arguments.text, arguments.seed), sys.stdout)
    return 0


def _run_avatars(arguments: argparse.Namespace) -> int:
    from streamer.commands import print_avatars
    from streamer.presenter_files import check_picture, make_presenter
    from streamer.presenters import preset_frame_size

    if arguments.task == "check":
        return check_picture(arguments.picture, arguments.json, sys.stdout)
    if arguments.task == "make":
        size = preset_frame_size(f"portrait-{arguments.size}")
        make_presenter(arguments.picture, arguments.out, size, sys.stdout)
    else:
        print_avatars(arguments.json, sys.stdout)
    return 0


def _run_models(arguments: argparse.Namespace) -> int:
    from streamer.public_models import check_models, convert_model, list_models

    if arguments.task == "list":
        list_models(arguments.json, sys.stdout)
    elif arguments.task == "check":
        return check_models(arguments.path, arguments.device, arguments.json, sys.stdout)
    else:
        convert_model(arguments.source, arguments.target, arguments.dtype, sys.stdout)
    return 0


def render_job(arguments: argparse.Namespace) -> RenderJob:
    """Arguments as a checked job.

    Raises:
        InputError: for a mark that cannot be drawn.
    """
    from streamer.commands import RenderJob

    return RenderJob(
        avatar=arguments.avatar,
        reference=arguments.reference,
        prompt=arguments.prompt,
        seed=arguments.seed,
        preset=_preset(arguments),
        weights=arguments.weights,
        device=arguments.device,
        threads=arguments.threads,
        precision=arguments.precision,
        chunk_latents=arguments.chunk,
        model=arguments.model,
        model_size=arguments.model_size,
        out=arguments.out,
        report=arguments.report,
        sheet=arguments.sheet,
        mark=_mark(arguments),
    )


def build_parser() -> argparse.ArgumentParser:
    """The whole command line."""
    parser = Parser(prog=PROGRAM, description="Speech in, a video of a presenter saying it out.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=Parser)
    _add_avatars(commands)
    shared = _render_options()
    render = commands.add_parser("render", parents=[shared], help="render a video from a sound file")
    render.add_argument("--audio", type=Path, required=True, metavar="FILE", help="any file with sound")
    say = commands.add_parser("say", parents=[shared], help="render a video from a text")
    say.add_argument("text", metavar="TEXT", help="English text")
    commands.add_parser(
        "serve", parents=[_server_options(), _serve_options()], help="serve live avatars to browsers by WebRTC"
    )
    _add_models(commands)
    doctor = commands.add_parser("doctor", parents=[_server_options()], help="say what works on this machine")
    doctor.add_argument("--json", action="store_true", help="as a JSON list of {name, state, found, advice}")
    return parser


def _add_avatars(commands: argparse._SubParsersAction[Parser]) -> None:
    avatars = commands.add_parser("avatars", help="the presenters that come with the package, and new ones of pictures")
    avatars.add_argument("--json", action="store_true", help="as a JSON list of {name, picture, preset, ...}")
    tasks = avatars.add_subparsers(dest="task", metavar="TASK", parser_class=Parser, help="without one: list them")
    check = tasks.add_parser("check", help="what of a picture will show in a presenter made of it, and what to do")
    check.add_argument("picture", type=Path, metavar="PICTURE")
    check.add_argument("--json", action="store_true", help="as a JSON list of {name, verdict, advice}")
    make = tasks.add_parser("make", help="make a presenter of a picture, once, for --reference")
    make.add_argument("picture", type=Path, metavar="PICTURE")
    make.add_argument("--out", type=Path, required=True, metavar="FILE.safetensors", help="the presenter")
    make.add_argument("--size", choices=SIZES, default=SIZES[0], help="width and height (default: 512)")


def _add_models(commands: argparse._SubParsersAction[Parser]) -> None:
    models = commands.add_parser("models", help="public weights: what is known, what a file is, into our layout")
    tasks = models.add_subparsers(dest="task", required=True, metavar="TASK", parser_class=Parser)
    known = tasks.add_parser("list", help="what can be loaded: by whom, under which licences")
    known.add_argument("--json", action="store_true", help="as a JSON list of {name, title, files, ...}")
    check = tasks.add_parser("check", help="what a file or folder is, whether it fits, what is missing, how fast")
    check.add_argument("path", type=Path, metavar="PATH", help="a .safetensors file, or a folder with some")
    check.add_argument("--device", default="cpu", metavar="D", help="cpu or cuda (default: cpu)")
    check.add_argument("--json", action="store_true", help="as JSON {parts, missing}")
    convert = tasks.add_parser("convert", help="names and numbers into our layout")
    convert.add_argument("source", type=Path, metavar="IN", help="file or folder of one model")
    convert.add_argument("target", type=Path, metavar="OUT", help="new folder")
    convert.add_argument("--dtype", choices=("bf16", "fp16", "fp32", "fp8"), default="bf16", help="default: bf16")


def _render_options() -> Parser:
    shared = Parser(add_help=False)
    who = shared.add_mutually_exclusive_group()
    who.add_argument("--avatar", metavar="NAME", help="presenter of the gallery (default: the first)")
    who.add_argument(
        "--reference", type=Path, metavar="FILE", help="picture of somebody else, or a presenter made of it"
    )
    how = shared.add_argument_group("how it is made")
    how.add_argument("--prompt", metavar="TEXT", help="emotion and manner in words (default: the avatar's)")
    how.add_argument("--seed", type=_seed, default=0, metavar="N", help="of everything random (default: 0)")
    how.add_argument("--preset", metavar="P", help="size and models (default: the avatar's, or portrait-512)")
    how.add_argument("--size", choices=SIZES, help="width and height of a portrait (default: 512)")
    how.add_argument("--weights", type=Path, metavar="DIR", help="weights folder (default: the shipped ones)")
    how.add_argument("--chunk", type=_chunk, default=3, metavar="N", help="latents a step, 1-6 (default: 3)")
    _add_model(how)
    how.add_argument("--device", default="cpu", metavar="D", help="cpu or cuda (default: cpu)")
    how.add_argument("--threads", type=_threads, metavar="N", help="processor threads (default: all cores)")
    how.add_argument(
        "--precision", choices=("auto", "fp32", "bf16"), default="auto", help="of the models (default: the fastest)"
    )
    out = shared.add_argument_group("what is written")
    out.add_argument("--out", type=Path, metavar="FILE.mp4", help="the video (default: SOUND-AVATAR.mp4)")
    out.add_argument("--report", type=Path, metavar="FILE.json", help="speed, operations, memory, versions")
    out.add_argument("--sheet", type=Path, metavar="FILE.png", help="contact sheet of the clip")
    mark = shared.add_argument_group("the visible mark (the statement in the file's metadata always stays)")
    mark.add_argument("--mark", metavar="TEXT", default="AI", help="what it says (default: AI)")
    mark.add_argument("--mark-corner", metavar="C", default="bottom-right", help=CORNER_HELP)
    mark.add_argument("--mark-opacity", type=float, default=0.6, metavar="X", help="0 to 1 (default: 0.6)")
    mark.add_argument("--no-mark", action="store_true", help="leave the picture bare")
    return shared


def _add_model(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--model", type=Path, metavar="DIR", help="folder of public weights instead of a preset (docs/weights.md)"
    )
    group.add_argument(
        "--model-size", type=_side, default=512, metavar="N", help="height and width of its frames (default: 512)"
    )


def _server_options() -> Parser:
    shared = Parser(add_help=False)
    where = shared.add_argument_group("where")
    where.add_argument("--host", default="127.0.0.1", metavar="H", help="address to listen at (default: 127.0.0.1)")
    where.add_argument("--port", type=_port, default=8080, metavar="N", help="port of HTTP (default: 8080)")
    where.add_argument(
        "--ice-server",
        action="append",
        type=_secret,
        default=[],
        metavar="URL[,USER,CREDENTIAL]",
        help="STUN or TURN server, for clients beyond this network; may be given again",
    )
    where.add_argument(
        "--turn-secret",
        type=_secret,
        metavar="S",
        help="shared with TURN servers that are given without a user: every connection gets credentials for an hour",
    )
    how = shared.add_argument_group("how frames are made")
    how.add_argument("--preset", default="portrait-512", metavar="P", help="size of picture and models")
    how.add_argument("--weights", type=Path, metavar="DIR", help="weights folder (default: the shipped ones)")
    how.add_argument("--device", default="cpu", metavar="D", help="cpu or cuda (default: cpu)")
    how.add_argument("--threads", type=_threads, metavar="N", help="processor threads (default: all but one)")
    return shared


def _serve_options() -> Parser:
    shared = Parser(add_help=False)
    media = shared.add_argument_group("where media goes, which does not pass --host and --port")
    media.add_argument(
        "--media-host",
        action="append",
        default=[],
        metavar="ADDRESS",
        help="address of this machine that media uses (default: all but loopback); may be given again",
    )
    media.add_argument("--udp-ports", metavar="A-B", help="UDP ports that media uses (default: any free ones)")
    media.add_argument("--public-address", metavar="ADDRESS", help="this machine's, as it is seen behind its router")
    how = shared.add_argument_group("sessions")
    how.add_argument("--avatar", metavar="NAME", help="presenter of who does not ask for one (default: the first)")
    how.add_argument("--max-sessions", type=_sessions, metavar="N", help="at once (default: by the machine's speed)")
    how.add_argument("--longest-session", type=_minutes, metavar="MIN", help="minutes until it ends (default: no end)")
    how.add_argument("--chunk", type=_chunk, default=2, metavar="N", help="latents a chunk, 1-6 (default: 2)")
    _add_model(how)
    how.add_argument("--graphs", action="store_true", help="replay the models from CUDA graphs, on a GPU")
    how.add_argument("--fp8", action="store_true", help="multiply in fp8, on a GPU that can")
    how.add_argument("--test-pattern", action="store_true", help="frames that flash with the sound, without models")
    how.add_argument("--no-mark", action="store_true", help="leave the picture without the visible mark")
    who = shared.add_argument_group("who may come in")
    who.add_argument("--token", type=_secret, metavar="T", help="wanted as Authorization: Bearer T (default: none is)")
    who.add_argument(
        "--public-host",
        action="append",
        default=[],
        metavar="NAME",
        help="name by which clients call the server, besides localhost and its address; may be given again",
    )
    who.add_argument("--behind-proxy", action="store_true", help="believe X-Forwarded-*: a proxy of yours is in front")
    who.add_argument(
        "--limit",
        action="append",
        type=_limit,
        default=[],
        metavar="NAME=N",
        help="how much one client may ask for, see docs/serving.md; may be given again",
    )
    who.add_argument(
        "--cors-origin",
        action="append",
        default=[],
        metavar="ORIGIN",
        help="site that may embed the avatar, https://HOST or *; may be given again",
    )
    return shared


def _preset(arguments: argparse.Namespace) -> str | None:
    if arguments.size is None:
        return arguments.preset
    if arguments.preset is not None:
        raise InputError("--size and --preset both say how large the picture is; give one of them")
    return f"portrait-{arguments.size}"


def _mark(arguments: argparse.Namespace) -> Mark | None:
    from streamer.mark import Mark

    if arguments.no_mark:
        return None
    try:
        return Mark(text=arguments.mark, corner=arguments.mark_corner, opacity=arguments.mark_opacity)
    except ValueError as error:
        raise InputError(str(error)) from error


def _whole(text: str, low: int, high: int) -> int:
    try:
        number = int(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from error
    if not low <= number <= high:
        raise argparse.ArgumentTypeError(f"{number} is not within {low} to {high}")
    return number


def _seed(text: str) -> int:
    return _whole(text, 0, MAX_SEED)


def _chunk(text: str) -> int:
    return _whole(text, 1, 6)


def _side(text: str) -> int:
    return _whole(text, 32, 2048)


def _port(text: str) -> int:
    return _whole(text, 0, 65_535)


def _sessions(text: str) -> int:
    return _whole(text, 1, 64)


def _minutes(text: str) -> int:
    return _whole(text, 1, 100_000)


def _limit(text: str) -> tuple[str, int]:
    name, _, number = text.partition("=")
    return name, _whole(number, 1, MAX_SEED)


def _secret(text: str) -> str:
    """What is given, or with an @ in front the first line of a file: others on the machine see a command line."""
    if not text.startswith("@"):
        return text
    try:
        secret = Path(text[1:]).read_text().strip()
    except (OSError, ValueError) as error:
        raise argparse.ArgumentTypeError(f"{text[1:]} cannot be read") from error
    if not secret or "\n" in secret:
        raise argparse.ArgumentTypeError(f"{text[1:]} does not hold one line")
    return secret


def _threads(text: str) -> int:
    return _whole(text, 1, 1024)


def _complain(sentence: str, exit_code: int) -> int:
    print(f"{PROGRAM}: {sentence}", file=sys.stderr)
    return exit_code


if __name__ == "__main__":
    sys.exit(main())
