from __future__ import annotations

import io
import json
import socket
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from models.gallery import Avatar
from models.presets import preset
from streamer import cli, commands
from tests.streamer.conftest import write_wav
from tests.streamer.fakes import FakePipeline


@pytest.fixture
def pipeline(monkeypatch: pytest.MonkeyPatch, picture: Path) -> FakePipeline:
    """The command line with a fake pipeline and a gallery of two; works in an empty folder."""
    fake = FakePipeline(preset("tiny").hr_size)
    gallery = [
        Avatar("Ada", picture, "tiny", "the first", "friendly"),
        Avatar("Ben", picture, "tiny", "the second", ""),
    ]
    monkeypatch.setattr("models.gallery.list_avatars", lambda: gallery)
    monkeypatch.setattr(commands, "load_pipeline", lambda *_: fake)
    monkeypatch.chdir(picture.parent)
    return fake


def fails(capsys: pytest.CaptureFixture[str], code: int, *arguments: object) -> str:
    """Runs the command line, which must end with the code and one sentence; returns that."""
    try:
        found = cli.main([str(argument) for argument in arguments])
    except SystemExit as stop:
        found = stop.code
    output = capsys.readouterr()
    assert found == code, output.err
    assert len(output.err.strip().splitlines()) == 1 and "Traceback" not in output.err
    assert output.out == ""
    return output.err


def test_render_writes_clip_report_and_sheet(pipeline: FakePipeline, wav: Path, capsys) -> None:
    arguments = [
        "render",
        "--audio",
        wav,
        "--out",
        "clip.mp4",
        "--report",
        "clip.json",
        "--sheet",
        "clip.png",
    ]
    assert cli.main([str(argument) for argument in arguments]) == 0
    assert "clip.mp4: 1.32 s, 33 frames, RTF" in capsys.readouterr().out
    with av.open("clip.mp4") as container:
        comment = container.metadata["comment"]
        assert "avatar Ada" in comment and "AI-generated" in comment
        assert container.streams.video[0].frames == 33
    report = json.loads(Path("clip.json").read_text())
    assert report["frames"] == 33 and report["avatar"] == "Ada" and report["gflop_per_frame"] == 0.0
    assert {"rtf", "stage_ms_per_frame", "device", "versions", "peak_memory_mb"} <= report.keys()
    with Image.open("clip.png") as sheet:
        assert sheet.width == 6 * pipeline.frame_size[1]
    assert pipeline.starts[0]["prompt"] == "friendly"


def test_names_and_prompts_can_be_chosen(pipeline: FakePipeline, wav: Path, capsys) -> None:
    assert cli.main(["render", "--audio", str(wav), "--avatar", "ben", "--prompt", "angry", "--seed", "5"]) == 0
    assert pipeline.starts == [{"prompt": "angry", "seed": 5, "chunk_latents": 3}]
    assert Path("tone-Ben.mp4").is_file()


def test_own_picture_and_chunk_size(pipeline: FakePipeline, wav: Path, picture: Path, capsys) -> None:
    line = ["render", "--audio", str(wav), "--reference", str(picture), "--preset", "tiny", "--chunk", "1"]
    assert cli.main(line) == 0
    assert set(pipeline.steps) == {1} and Path("tone-face.mp4").is_file()


def test_metadata_stays_when_the_mark_goes(pipeline: FakePipeline, wav: Path, capsys) -> None:
    assert cli.main(["render", "--audio", str(wav), "--no-mark", "--out", "bare.mp4"]) == 0
    with av.open("bare.mp4") as container:
        assert "AI-generated" in container.metadata["comment"]
        assert next(container.decode(video=0)).to_ndarray(format="gray").std() < 2


def test_say_speaks_a_text(pipeline: FakePipeline, capsys) -> None:
    pytest.importorskip("hibari")
    assert cli.main(["say", "Good morning.", "--out", "said.mp4"]) == 0
    with av.open("said.mp4") as container:
        assert 0.5 < container.duration / av.time_base < 4.0


def test_avatars_are_listed(pipeline: FakePipeline, capsys) -> None:
    assert cli.main(["avatars"]) == 0
    assert capsys.readouterr().out.splitlines()[0] == "Ada  tiny  the first"
    assert cli.main(["avatars", "--json"]) == 0
    entries = json.loads(capsys.readouterr().out)
    assert [entry["name"] for entry in entries] == ["Ada", "Ben"]
    assert {"name", "picture", "preset", "description", "prompt"} <= entries[0].keys()


def test_missing_sound_file(pipeline: FakePipeline, capsys) -> None:
    assert "there is no file none.wav" in fails(capsys, 2, "render", "--audio", "none.wav")


def test_file_without_sound_track(pipeline: FakePipeline, picture: Path, capsys) -> None:
    assert "has no sound track" in fails(capsys, 2, "render", "--audio", picture)


def test_zero_seconds_of_sound(pipeline: FakePipeline, tmp_path: Path, capsys) -> None:
    path = write_wav(tmp_path / "zero.wav", np.zeros(0))
    fails(capsys, 2, "render", "--audio", path, "--out", "zero.mp4")
    assert not Path("zero.mp4").exists() and not pipeline.starts


def test_broken_picture(pipeline: FakePipeline, wav: Path, tmp_path: Path, capsys) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff but no more")
    sentence = fails(capsys, 2, "render", "--audio", wav, "--reference", tmp_path / "broken.jpg", "--preset", "tiny")
    assert "is not a picture that can be read" in sentence


def test_unknown_names(pipeline: FakePipeline, wav: Path, picture: Path, capsys) -> None:
    assert "there are Ada, Ben" in fails(capsys, 2, "render", "--audio", wav, "--avatar", "Zoe")
    assert "presenter-256" in fails(capsys, 2, "render", "--audio", wav, "--preset", "huge")
    fails(capsys, 2, "render", "--audio", wav, "--avatar", "Ada", "--reference", picture)


@pytest.mark.parametrize("place", ["/proc/clip.mp4", "face.png/clip.mp4", "clip.avi"])
def test_places_that_cannot_be_written(pipeline: FakePipeline, wav: Path, capsys, place: str) -> None:
    assert "cannot write" in fails(capsys, 1, "render", "--audio", wav, "--out", place)
    assert not pipeline.starts


def test_report_and_sheet_are_checked_before_the_work(pipeline: FakePipeline, wav: Path, capsys) -> None:
    fails(capsys, 1, "render", "--audio", wav, "--report", "/proc/report.json")
    fails(capsys, 1, "render", "--audio", wav, "--sheet", "sheet.jpg")
    assert not pipeline.starts


def test_sound_file_is_not_overwritten(pipeline: FakePipeline, wav: Path, capsys) -> None:
    clip = wav.with_suffix(".mp4")
    wav.rename(clip)
    assert "is read for this rendering" in fails(capsys, 1, "render", "--audio", clip, "--out", clip)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--seed", "-1"],
        ["--seed", "x"],
        ["--chunk", "7"],
        ["--mark-opacity", "2"],
        ["--mark", ""],
        ["--threads", "0"],
    ],
)
def test_values_out_of_range(pipeline: FakePipeline, wav: Path, capsys, arguments: list[str]) -> None:
    fails(capsys, 2, "render", "--audio", wav, *arguments)


def test_commands_that_do_not_exist(capsys) -> None:
    fails(capsys, 2, "dance")
    fails(capsys, 2)
    fails(capsys, 2, "render")


def test_text_that_cannot_be_spoken(pipeline: FakePipeline, capsys) -> None:
    assert "nothing to say" in fails(capsys, 2, "say", " ")


def test_faults_of_the_program_are_one_sentence_too(pipeline: FakePipeline, wav: Path, capsys, monkeypatch) -> None:
    def fail(*_):
        raise RuntimeError("matrix\nfell over")

    monkeypatch.setattr(pipeline, "step", fail)
    sentence = fails(capsys, 1, "render", "--audio", wav, "--out", "clip.mp4")
    assert "RuntimeError: matrix fell over" in sentence and "INFINITY_AVATAR_TRACEBACK" in sentence
    assert not Path("clip.mp4").exists()


def test_interrupting_leaves_nothing(pipeline: FakePipeline, wav: Path, capsys, monkeypatch) -> None:
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(pipeline, "step", interrupt)
    assert "stopped" in fails(capsys, 130, "render", "--audio", wav, "--out", "clip.mp4")
    assert not [path for path in Path().iterdir() if "clip" in path.name]


def test_empty_gallery_is_said(wav: Path, capsys, monkeypatch) -> None:
    monkeypatch.setattr("models.gallery.list_avatars", list)
    assert "gallery is empty" in fails(capsys, 2, "render", "--audio", wav)
    commands.print_avatars(True, stream := io.StringIO())
    assert json.loads(stream.getvalue()) == []


@pytest.mark.parametrize("content", [None, "{}", "not json"])
def test_wrong_checkpoint(wav: Path, picture: Path, tmp_path: Path, capsys, content: str | None) -> None:
    folder = tmp_path / "weights"
    if content is not None:
        folder.mkdir()
        (folder / "config.json").write_text(content)
    line = ["render", "--audio", wav, "--reference", picture, "--preset", "tiny", "--weights", folder]
    assert "cannot load the models" in fails(capsys, 2, *line, "--out", tmp_path / "clip.mp4")
    assert not (tmp_path / "clip.mp4").exists()


def test_devices_that_are_not_there(wav: Path, picture: Path, capsys, tmp_path: Path) -> None:
    line = [
        "render",
        "--audio",
        wav,
        "--reference",
        picture,
        "--preset",
        "tiny",
        "--out",
        tmp_path / "clip.mp4",
    ]
    assert "there is no device" in fails(capsys, 2, *line, "--device", "toaster")


def test_options_of_serve_reach_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    serve = pytest.importorskip("streamer.server.serve")
    seen = []
    monkeypatch.setattr(serve, "run_server", lambda options, stream: seen.append(options))
    line = "serve --host 0.0.0.0 --port 9000 --preset tiny --device cuda --threads 2 --avatar tom --max-sessions 3"
    line += " --media-host 10.0.0.5 --media-host fd00::5 --udp-ports 50000-50003 --public-address 203.0.113.7"
    line += " --ice-server stun:a.example --ice-server turn:b.example,ann,pw --token T --cors-origin https://c.example"
    line += " --public-host c.example --behind-proxy --limit offers=5 --limit unseen=2 --longest-session 30"
    line += " --chunk 2 --test-pattern --no-mark"
    assert cli.main(line.split()) == 0
    options = seen[0]
    assert (options.host, options.port, options.preset, options.device) == ("0.0.0.0", 9000, "tiny", "cuda")
    assert (options.threads, options.avatar, options.max_sessions, options.chunk_latents) == (2, "tom", 3, 2)
    assert [server.url for server in options.ice_servers] == ["stun:a.example", "turn:b.example"]
    assert options.network.addresses == ("10.0.0.5", "fd00::5") and options.network.public_address == "203.0.113.7"
    assert options.network.ports == range(50_000, 50_004)
    assert options.public_hosts == ("c.example",) and options.is_behind_proxy and options.longest_session_s == 1800
    assert options.limits == {"offers": 5, "unseen": 2}
    assert options.ice_servers[1].credential == "pw" and options.token == "T"
    assert options.cors_origins == ("https://c.example",) and options.is_test_pattern and options.mark is None
    assert cli.main(["serve"]) == 0 and seen[1].mark is not None and seen[1].max_sessions is None


def test_secrets_of_serve_come_from_files_and_the_environment(monkeypatch, tmp_path: Path, capsys) -> None:
    serve = pytest.importorskip("streamer.server.serve")
    seen = []
    monkeypatch.setattr(serve, "run_server", lambda options, stream: seen.append(options))
    (tmp_path / "token").write_text("hunter2\n")
    (tmp_path / "turn").write_text("turn:b.example,ann,pw\n")
    files = ["serve", "--token", f"@{tmp_path}/token", "--ice-server", f"@{tmp_path}/turn"]
    assert cli.main(files) == 0
    assert cli.main(["serve", "--ice-server", "turn:b.example", "--turn-secret", f"@{tmp_path}/token"]) == 0
    assert seen.pop().ice_servers[0].issued().credential
    monkeypatch.setenv("INFINITY_AVATAR_TURN_SECRET", "hunter2")
    monkeypatch.setenv("INFINITY_AVATAR_ICE_SERVERS", "turn:b.example")
    assert cli.main(["serve"]) == 0
    assert seen.pop().ice_servers[0].issued().credential
    monkeypatch.setenv("INFINITY_AVATAR_TOKEN", "hunter2")
    monkeypatch.setenv("INFINITY_AVATAR_ICE_SERVERS", "turn:b.example,ann,pw")
    assert cli.main(["serve"]) == 0
    for options in seen:
        assert options.token == "hunter2" and options.ice_servers[0].credential == "pw"
    with pytest.raises(SystemExit):
        cli.main(["serve", "--token", f"@{tmp_path}/none"])
    assert "cannot be read" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        ["--port", "65536"],
        ["--port", "http"],
        ["--max-sessions", "0"],
        ["--chunk", "7"],
        ["--ice-server", "stun.example.org"],
        ["--media-host", "avatar.example.org"],
        ["--udp-ports", "50100-50000"],
        ["--public-address", "0.0.0.0"],
        ["--ice-server", "turn:t.example,ann"],
        ["--cors-origin", "example.org"],
        ["--preset", "huge"],
        ["--host", "no.such.host.invalid"],
        ["--host", "192.0.2.77"],
        ["--limit", "offers"],
        ["--limit", "offers=0"],
        ["--limit", "kisses=1"],
        ["--public-host", "http://c.example"],
        ["--behind-proxy"],
        ["--longest-session", "0"],
    ],
)
def test_serve_refuses_what_it_cannot_use_before_it_starts_anything(capsys, arguments: list[str]) -> None:
    pytest.importorskip("aiortc")
    fails(capsys, 2, "serve", "--port", 0, *arguments)


def test_port_in_use_is_said(capsys) -> None:
    pytest.importorskip("aiortc")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert "in use" in fails(capsys, 1, "serve", "--port", taken.getsockname()[1])


def test_server_that_is_not_installed_says_how_to_get_it(capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    for command in ("serve", "doctor"):
        assert "pip install 'infinity-avatar[serve]'" in fails(capsys, 1, command)


@pytest.mark.parametrize(("state", "code"), [("warning", 0), ("missing", 1)])
def test_exit_code_of_doctor_says_whether_the_server_can_run(capsys, monkeypatch, state: str, code: int) -> None:
    doctor = pytest.importorskip("streamer.doctor")
    monkeypatch.setattr(doctor, "examine", lambda options: iter([doctor.Finding("UDP", state, "none", "allow it")]))
    assert cli.main(["doctor", "--json"]) == code
    assert json.loads(capsys.readouterr().out)[0]["state"] == state


@pytest.mark.parametrize("command", ["render", "serve", "doctor"])
def test_help_does_not_load_torch(command: str) -> None:
    probe = (
        "import sys; from streamer import cli\n"
        f"try: cli.main(['{command}', '--help'])\n"
        "except SystemExit: pass\n"
        "assert not {'torch', 'numpy', 'av', 'PIL'} & sys.modules.keys()"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_size_and_preset_do_not_go_together(capsys, wav) -> None:
    said = fails(capsys, 2, "render", "--audio", wav, "--size", "512", "--preset", "tiny")
    assert "--size and --preset" in said
