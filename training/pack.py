"""One archive with all that training on another machine needs beside this repository: speech and assets.

    python -m training.pack --speech CORPUS --out PACK.tar --minutes 40 [--assets ASSETS --presenters maya,tom]
    python -m training.pack --unpack PACK.tar --out FOLDER

The archive is a compressed tar: `speech/manifest.json` with one Opus file a clip, and under `assets/` the files
that the named presenters wear and no others. Unpacked, `FOLDER/speech` is a corpus of wave files as
`python -m training.synthetic.speech` builds it, with fewer clips.
"""

from __future__ import annotations

import argparse
import io
import tarfile
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from training.synthetic.identity import DARK_SKINS, GALLERY, LIGHT_SKINS, Identity, sample_identity
from training.synthetic.speech import Clip, load_corpus, write_manifest
from training.synthetic.voices import SAMPLE_RATE, write_wav

HELD_OUT_SHARE = 0.15  # of the minutes


def choose_clips(clips: Sequence[Clip], minutes: float) -> list[Clip]:
    """A subset of about `minutes`, the voices of each split alike; every voice has a clip at least.

    Clips come in a fixed scattered order, so that a smaller pack is part of a larger one. What a voice has too
    little of goes to the others.

    Raises:
        ValueError: if minutes is not above 0.
    """
    if minutes <= 0:
        raise ValueError(f"minutes must be above 0, got {minutes}")
    chosen = []
    for split, share in (("train", 1 - HELD_OUT_SHARE), ("heldout", HELD_OUT_SHARE)):
        by_voice: dict[str, list[Clip]] = defaultdict(list)
        for clip in sorted((c for c in clips if c.split == split), key=lambda c: c.name):
            by_voice[clip.voice].append(clip)
        left_s = 60 * minutes * share
        waiting = sorted(by_voice, key=lambda voice: sum(clip.duration_s for clip in by_voice[voice]))
        for number, voice in enumerate(waiting):  # voices with little first: the rest share what they leave
            budget_s = left_s / (len(waiting) - number)
            own = by_voice[voice]
            order = np.random.default_rng(sum(voice.encode())).permutation(len(own))
            ends_s = np.cumsum([own[index].duration_s for index in order])
            count = max(1, int((ends_s <= budget_s).sum()))
            chosen += [own[index] for index in sorted(order[:count])]
            left_s -= float(ends_s[count - 1])
    return chosen


def encode_opus(samples: np.ndarray, bit_rate: int) -> bytes:
    """Sound float32 [n] at 16 kHz → an Ogg Opus file."""
    import av

    target = io.BytesIO()
    with av.open(target, "w", format="ogg") as container:
        stream = container.add_stream("libopus", rate=SAMPLE_RATE, options={"application": "voip"})
        stream.layout, stream.bit_rate = "mono", bit_rate
        pcm = (np.clip(samples, -1, 1) * 32767).round().astype(np.int16)
        frame = av.AudioFrame.from_ndarray(pcm[None], format="s16", layout="mono")
        frame.sample_rate = SAMPLE_RATE
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return target.getvalue()


def decode_opus(content: bytes, count: int) -> np.ndarray:
    """An Ogg Opus file → sound float32 [count] at 16 kHz, cut or filled with silence to that length."""
    import av

    resampler = av.AudioResampler(format="flt", layout="mono", rate=SAMPLE_RATE)
    with av.open(io.BytesIO(content), "r") as container:
        frames = [*container.decode(audio=0), None]  # None: give out what is left
        blocks = [part.to_ndarray().reshape(-1) for frame in frames for part in resampler.resample(frame)]
    samples = np.concatenate(blocks)[:count].astype(np.float32)
    return np.pad(samples, (0, count - len(samples)))


def presenter_identity(name: str) -> Identity:
    """Identity by the generator's names: of the gallery, or p<seed>.

    Raises:
        ValueError: for a name that is neither.
    """
    if name in GALLERY:
        return GALLERY[name]
    if name.startswith("p") and name[1:].isdigit():
        return sample_identity(int(name[1:]))
    raise ValueError(f"no presenter {name!r}; there are {', '.join(GALLERY)}, or p<seed>")


def needed_assets(assets: Path, identities: Iterable[Identity]) -> list[Path]:
    """Files below the assets folder that dress these people, sorted.

    Raises:
        ValueError: if the folder lacks something that they wear.
    """
    patterns = {"LICENSE*", "teeth/teeth_base/*", "teeth/materials/teeth.png", "tongue/tongue01/*"}
    for identity in identities:
        sex, names = ("female" if identity.is_female else "male"), DARK_SKINS if identity.dark_skin else LIGHT_SKINS
        patterns |= {f"skins/textures/{names[index].format(sex)}.png" for index, _ in identity.skin_mix}
        patterns |= {f"clothes/{identity.outfit}/*", f"eyes/materials/{identity.eye}.png"}
        patterns |= {f"eyebrows/{identity.brow}/*", f"eyelashes/{identity.lash}/*"}
        if identity.hair:
            patterns.add(f"hair/{identity.hair}/*")
    found = {pattern: list(assets.glob(pattern)) for pattern in patterns}
    if missing := sorted(pattern for pattern, paths in found.items() if not paths and not pattern.startswith("LIC")):
        raise ValueError(f"{assets} lacks {', '.join(missing)}")
    paths = {path for paths in found.values() for path in paths}
    return sorted(path for path in paths if path.suffix not in (".mhmat", ".thumb"))


def write_pack(
    out: Path, clips: Sequence[Clip], bit_rate: int = 24_000, assets: Path | None = None,
    identities: Sequence[Identity] = (),
) -> None:  # fmt: skip
    """Write the archive, complete or not at all."""
    partial = out.with_name(out.name + ".part")
    with tarfile.open(partial, "w:xz") as archive:

        def add(name: str, content: bytes) -> None:
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))

        with tempfile.TemporaryDirectory() as folder:
            write_manifest(Path(folder), list(clips))
            add("speech/manifest.json", (Path(folder) / "manifest.json").read_bytes())
        for clip in tqdm(clips, unit="clip", mininterval=5):
            add(f"speech/{clip.name}.opus", encode_opus(clip.samples(), bit_rate))
        for path in needed_assets(assets, identities) if assets else ():
            add(f"assets/{path.relative_to(assets).as_posix()}", path.read_bytes())  # type: ignore[arg-type]
    partial.replace(out)


def unpack(pack: Path, out: Path) -> list[Clip]:
    """Unpack an archive into `out/speech` (a corpus) and `out/assets`; returns the corpus's clips.

    Raises:
        ValueError: if it is not such an archive.
    """
    out.mkdir(parents=True, exist_ok=True)
    try:
        with tarfile.open(pack, "r:*") as archive:
            archive.extractall(out, filter="data")
    except (tarfile.TarError, OSError, EOFError) as error:
        raise ValueError(f"{pack} cannot be unpacked: {error}") from error
    speech = out / "speech"
    if not (speech / "manifest.json").is_file():
        raise ValueError(f"{pack} is not a training pack: it has no speech/manifest.json")
    clips = load_corpus(speech)
    for clip in clips:
        source = speech / f"{clip.name}.opus"
        samples = decode_opus(source.read_bytes(), round(clip.duration_s * SAMPLE_RATE))
        write_wav(speech / f"{clip.name}.wav", samples)
        source.unlink()
    return clips


def write_archives(folders: Sequence[Path], out: Path, name: str, limit_bytes: int = 15 * 2**20) -> list[Path]:
    """Gather folders into as few `<name>-<i>.tar` as files of at most `limit_bytes` allow.

    Raises:
        ValueError: if a single file is larger than that.
    """
    files = [(path, folder) for folder in folders for path in sorted(folder.rglob("*")) if path.is_file()]
    shares: list[list[tuple[Path, Path]]] = []
    room: list[int] = []
    for path, folder in sorted(files, key=lambda item: -item[0].stat().st_size):
        size = -(-path.stat().st_size // 512) * 512 + 1024  # with its header in the tar
        if size > limit_bytes - 10240:
            raise ValueError(f"{path} has {size / 2**20:.1f} MiB, an archive at most {limit_bytes / 2**20:.1f}")
        place = next((index for index, left in enumerate(room) if left >= size), len(room))
        if place == len(room):
            shares.append([])
            room.append(limit_bytes - 10240)
        shares[place].append((path, folder))
        room[place] -= size
    out.mkdir(parents=True, exist_ok=True)
    targets = [out / f"{name}-{index + 1}.tar" for index in range(len(shares))]
    for target, share in zip(targets, shares, strict=True):
        with tarfile.open(target, "w") as archive:
            for path, folder in sorted(share):
                archive.add(path, f"{folder.name}/{path.relative_to(folder).as_posix()}")
    return targets


def summary(clips: Sequence[Clip]) -> Iterator[str]:
    """A line for each split: minutes and voices."""
    for split in ("train", "heldout"):
        own = [clip for clip in clips if clip.split == split]
        minutes = sum(clip.duration_s for clip in own) / 60
        yield f"{split}: {minutes:.1f} min, {len(own)} clips, voices {', '.join(sorted({c.voice for c in own}))}"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m training.pack", description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="the archive, or the folder to unpack into")
    parser.add_argument("--speech", type=Path, help="corpus of python -m training.synthetic.speech")
    parser.add_argument("--minutes", type=float, default=40.0, help="of speech, held-out speech included")
    parser.add_argument("--bit-rate", type=int, default=24_000, help="of Opus, bits a second")
    parser.add_argument("--assets", type=Path, help="folder of the MakeHuman assets")
    parser.add_argument("--presenters", default="maya,tom,lin,kofi", help="whose assets to pack")
    parser.add_argument("--unpack", type=Path, metavar="PACK", help="unpack this archive instead")
    parser.add_argument("--results", type=Path, nargs="+", metavar="FOLDER", help="gather result folders instead")
    parser.add_argument("--name", default="results", help="of the archives of --results")
    options = parser.parse_args(arguments)
    try:
        if options.results:
            for path in write_archives(options.results, options.out, options.name):
                print(f"{path}: {path.stat().st_size / 1e6:.1f} MB")
            return
        if options.unpack:
            clips = unpack(options.unpack, options.out)
        elif options.speech:
            clips = choose_clips(load_corpus(options.speech), options.minutes)
            identities = [presenter_identity(name) for name in options.presenters.split(",")]
            write_pack(options.out, clips, options.bit_rate, options.assets, identities)
            print(f"{options.out}: {options.out.stat().st_size / 1e6:.1f} MB")
        else:
            parser.error("one of --speech, --unpack and --results is needed")
    except ValueError as error:
        parser.error(str(error))
    print(*summary(clips), sep="\n")


if __name__ == "__main__":
    main()
