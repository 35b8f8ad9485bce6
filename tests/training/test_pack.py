"""Packs: what is chosen, and that it comes out as it went in."""

from __future__ import annotations

import io
import tarfile

import numpy as np
import pytest

from tests.training.synthetic.corpus import tone_clip, write_corpus
from training.pack import (
    choose_clips,
    decode_opus,
    encode_opus,
    main,
    needed_assets,
    presenter_identity,
    unpack,
    write_archives,
    write_pack,
)
from training.synthetic.speech import Clip, load_corpus


def many_clips() -> list[Clip]:
    """Voices a and b with an hour each and c with a minute; a and d are heard in held-out texts."""
    amounts = {("a", "train"): 720, ("b", "train"): 720, ("c", "train"): 12, ("a", "heldout"): 60, ("d", "heldout"): 60}
    return [
        Clip(f"{voice}_{split}_{i:03d}", split, voice, "text", "drawn", "none", 5.0, ())
        for (voice, split), count in amounts.items()
        for i in range(count)
    ]


def minutes_of(clips: list[Clip], voice: str, split: str) -> float:
    return sum(clip.duration_s for clip in clips if (clip.voice, clip.split) == (voice, split)) / 60


def test_voices_are_balanced_and_what_one_lacks_goes_to_the_others():
    chosen = choose_clips(many_clips(), 40)
    assert minutes_of(chosen, "c", "train") == 1.0
    assert minutes_of(chosen, "a", "train") == pytest.approx(16.5, abs=0.1)
    assert minutes_of(chosen, "b", "train") == pytest.approx(16.5, abs=0.1)
    assert minutes_of(chosen, "a", "heldout") == pytest.approx(3, abs=0.1)
    assert minutes_of(chosen, "d", "heldout") == pytest.approx(3, abs=0.1)


def test_every_voice_is_there_however_small_the_pack():
    chosen = choose_clips(many_clips(), 0.1)
    assert {(c.voice, c.split) for c in chosen} == {(c.voice, c.split) for c in many_clips()}


def test_a_smaller_pack_is_part_of_a_larger_one():
    assert set(choose_clips(many_clips(), 10)) <= set(choose_clips(many_clips(), 20))


@pytest.mark.parametrize("minutes", [0, -1])
def test_no_minutes_are_refused(minutes):
    with pytest.raises(ValueError, match="above 0"):
        choose_clips(many_clips(), minutes)


def test_opus_keeps_the_sound_where_it_was(tmp_path):
    samples = tone_clip(tmp_path, "a", "slt", syllables=10).samples()
    content = encode_opus(samples, 24_000)
    found = decode_opus(content, len(samples))
    assert found.shape == samples.shape and found.dtype == np.float32
    assert len(content) < len(samples) / 2
    level, level_found = (np.square(x[: len(x) // 160 * 160]).reshape(-1, 160).mean(1) for x in (samples, found))
    lags = [np.corrcoef(level[3:-3], np.roll(level_found, -lag)[3:-3])[0, 1] for lag in (-2, -1, 0, 1, 2)]
    assert int(np.argmax(lags)) == 2 and lags[2] > 0.98  # in steps of 10 ms


def test_a_pack_comes_out_as_a_corpus(tmp_path, capsys):
    (tmp_path / "speech").mkdir()
    clips = write_corpus(tmp_path / "speech")
    main(["--speech", str(tmp_path / "speech"), "--out", str(tmp_path / "pack.tar"), "--minutes", "1"])
    assert "heldout: 0.0 min, 1 clips, voices awb" in capsys.readouterr().out
    main(["--unpack", str(tmp_path / "pack.tar"), "--out", str(tmp_path / "there")])
    found = {clip.name: clip for clip in load_corpus(tmp_path / "there" / "speech")}
    assert found == {clip.name: clip for clip in clips}
    for clip in clips:
        assert len(found[clip.name].samples()) == len(clip.samples())
    assert not list((tmp_path / "there").rglob("*.opus"))
    main(["--unpack", str(tmp_path / "pack.tar"), "--out", str(tmp_path / "there")])  # and once more


def test_what_is_no_pack_is_refused_in_words(tmp_path):
    (tmp_path / "text.tar").write_text("no archive")
    with pytest.raises(ValueError, match="cannot be unpacked"):
        unpack(tmp_path / "text.tar", tmp_path / "out")
    with tarfile.open(tmp_path / "empty.tar", "w:xz"):
        pass
    with pytest.raises(ValueError, match="not a training pack"):
        unpack(tmp_path / "empty.tar", tmp_path / "out")


def test_an_archive_that_points_outside_is_refused(tmp_path):
    with tarfile.open(tmp_path / "bad.tar", "w") as archive:
        archive.addfile(tarfile.TarInfo("../outside"), io.BytesIO())
    with pytest.raises(ValueError, match="cannot be unpacked"):
        unpack(tmp_path / "bad.tar", tmp_path / "out")
    assert not (tmp_path / "outside").exists()


def write_assets(folder) -> None:
    for name in (
        "LICENSE.txt", "teeth/teeth_base/teeth_base.obj", "teeth/materials/teeth.png", "tongue/tongue01/tongue01.obj",
        "skins/textures/young_lightskinned_female_diffuse.png", "skins/textures/young_lightskinned_female_diffuse3.png",
        "skins/textures/young_lightskinned_male_diffuse.png", "clothes/female_casualsuit01/female_casualsuit01.obj",
        "clothes/female_casualsuit01/female_casualsuit01.mhmat", "clothes/male_casualsuit05/male_casualsuit05.obj",
        "eyes/materials/brownlight_eye.png", "eyebrows/eyebrow001/eyebrow001.png", "hair/long01/long01.obj",
        "eyelashes/eyelashes02/eyelashes02.png",
    ):  # fmt: skip
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)


def test_only_what_the_presenters_wear_is_packed(tmp_path):
    write_assets(tmp_path)
    names = {path.relative_to(tmp_path).as_posix() for path in needed_assets(tmp_path, [presenter_identity("maya")])}
    assert "clothes/female_casualsuit01/female_casualsuit01.obj" in names and "LICENSE.txt" in names
    assert not any("male_casualsuit05" in name or "light" in name and "_male" in name for name in names)
    assert not any(name.endswith(".mhmat") for name in names)
    with pytest.raises(ValueError, match="lacks .*eyebrow012"):
        needed_assets(tmp_path, [presenter_identity("tom")])


def test_assets_travel_with_the_speech(tmp_path):
    (tmp_path / "speech").mkdir()
    write_assets(tmp_path / "assets")
    clips = write_corpus(tmp_path / "speech")
    write_pack(tmp_path / "pack.tar", clips[:1], assets=tmp_path / "assets", identities=[presenter_identity("maya")])
    unpack(tmp_path / "pack.tar", tmp_path / "there")
    assert (tmp_path / "there/assets/hair/long01/long01.obj").read_text() == "hair/long01/long01.obj"


def test_unknown_presenters_are_refused():
    assert presenter_identity("p7") == presenter_identity("p7")
    with pytest.raises(ValueError, match="maya"):
        presenter_identity("nobody")


def test_results_are_gathered_below_a_limit(tmp_path):
    (tmp_path / "weights" / "gallery").mkdir(parents=True)
    for index, size in enumerate((40_000, 30_000, 20_000)):
        (tmp_path / "weights" / f"{index}.bin").write_bytes(bytes(size))
    (tmp_path / "weights" / "gallery" / "note.txt").write_text("here")
    archives = write_archives([tmp_path / "weights"], tmp_path / "out", "weights", limit_bytes=81_920)
    assert [path.name for path in archives] == ["weights-1.tar", "weights-2.tar"]
    assert all(path.stat().st_size <= 81_920 for path in archives)
    for path in archives:
        with tarfile.open(path) as archive:
            archive.extractall(tmp_path / "back", filter="data")
    found = {path.relative_to(tmp_path / "back").as_posix() for path in (tmp_path / "back").rglob("*.*")}
    assert found == {"weights/0.bin", "weights/1.bin", "weights/2.bin", "weights/gallery/note.txt"}
    with pytest.raises(ValueError, match="0.bin has 0.0 MiB"):
        write_archives([tmp_path / "weights"], tmp_path / "out", "weights", limit_bytes=40_000)
