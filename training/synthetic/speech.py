"""The speech corpus: clips of many voices with the times of their phones.

    python -m training.synthetic.speech --out DIR

DIR gets `manifest.json` and one 16 kHz mono wave file a clip. A text is held out by its hash, whoever says it;
the voices in `HELD_OUT_VOICES` are held out altogether. What cannot be aligned well is dropped.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from training.synthetic.alignment import Aligner, AlignmentError, AlignmentWorker, words_of
from training.synthetic.espeak import Espeak
from training.synthetic.festival import FESTIVAL_VOICES, FestivalVoice
from training.synthetic.phones import BILABIALS, SILENCE, VOWELS, Phone, parse_phones
from training.synthetic.recordings import PROMPT_SETS, SHARE, PromptSet, prompts, read_g722
from training.synthetic.sentences import sentences
from training.synthetic.voices import (
    SAMPLE_RATE,
    Speak,
    espeak_voice,
    espeak_voices,
    flite_voice,
    hibari_voice,
    piper_voice,
    read_wav,
    write_wav,
)

HELD_OUT_VOICES = frozenset({"awb"})
_HELD_OUT_SHARE = 0.12
_SPEECH_RMS = 0.07  # level of every clip, of the parts that are not silence
_SHORTEST_S, _LONGEST_S = 0.8, 14.0
_HELD_OUT_SENTENCES = 60  # that a held-out voice says
_SYNTHETIC = {  # voice: (sentences it says, licence)
    "hibari": (640, "Apache-2.0"),
    "slt": (380, "CMU Flite (BSD-like)"),
    "rms": (380, "CMU Flite (BSD-like)"),
    "kal16": (90, "CMU Flite (BSD-like)"),
    "espeak-f3": (110, "GPL-3.0 program, output free"),
    "espeak-m3": (110, "GPL-3.0 program, output free"),
    "espeak-gb": (110, "GPL-3.0 program, output free"),
    "piper-joe": (500, "CC0"),
    "espeak-many": (2000, "GPL-3.0 program, output free"),
    **{f"festival-{voice}": (300, "GPL, LGPL or free; output free") for voice in FESTIVAL_VOICES},
    "awb": (_HELD_OUT_SENTENCES, "CMU Flite (BSD-like)"),
}

_LANGUAGES = "en-us en-us en en-gb-scotland de es fr it pt pl nl sv fi tr cs hu ro el hr id sw".split()
_VARIANTS = (
    "f1 f2 f3 f4 f5 m1 m2 m3 m4 m5 m6 m7 m8 klatt klatt2 klatt3 klatt4 Annie Andy Alicia Denis Diogo Gene Henrique "
    "Hugo Jacky Lee Marco Mario Michael Mike Storm adam anika aunty belinda boris caleb david ed edward grandma "
    "grandpa iven john linda max michel paul pedro quincy rob robert sandro shelby steph travis victor zac"
).split()


@dataclass(frozen=True)
class Quality:
    """How well the phone times fit the sound, in decibels; nan where the clip has no such phones.

    Attributes:
        silence_drop_db: level of the speech above that of its silences, full band.
        closure_drop_db: level of the vowels above that of p, b, m, 500–4000 Hz.
    """

    silence_drop_db: float
    closure_drop_db: float

    @property
    def is_good(self) -> bool:
        """Whether silence is silent and shut lips are muffled; what cannot be judged counts as good."""
        return not (self.silence_drop_db < 9 or self.closure_drop_db < 4)


@dataclass(frozen=True)
class Clip:
    """One utterance of the corpus.

    Attributes:
        name: unique; the wave file is `<name>.wav`.
        split: "train" or "heldout".
        voice: who speaks.
        text: what is said.
        source, licence: where the sound comes from.
        duration_s: length of the sound.
        phones: with times in seconds, ARPABET.
        folder: of the corpus.
    """

    name: str
    split: str
    voice: str
    text: str
    source: str
    licence: str
    duration_s: float
    phones: tuple[Phone, ...]
    folder: Path = field(default=Path("."), compare=False)

    def samples(self) -> np.ndarray:
        """The sound, float32 [n] at 16 kHz."""
        samples, rate = read_wav(self.folder / f"{self.name}.wav")
        if rate != SAMPLE_RATE:
            raise ValueError(f"{self.name}.wav has {rate} Hz, want {SAMPLE_RATE}")
        return samples


def split_of(text: str, voice: str) -> str:
    """"heldout" for the held-out voices and for about 12 % of the texts, else "train"."""
    plain = " ".join(words_of(text))
    fraction = int.from_bytes(hashlib.sha256(plain.encode()).digest()[:4], "big") / 2**32
    return "heldout" if voice in HELD_OUT_VOICES or fraction < _HELD_OUT_SHARE else "train"


def _band_level_db(samples: np.ndarray, first_s: float, last_s: float, low_hz: float, high_hz: float) -> float:
    piece = samples[round(first_s * SAMPLE_RATE) : round(last_s * SAMPLE_RATE)]
    if len(piece) < 160:
        return float("nan")
    power = np.abs(np.fft.rfft(piece * np.hanning(len(piece)), 1024 if len(piece) < 1024 else None)) ** 2
    frequencies = np.linspace(0, SAMPLE_RATE / 2, len(power))
    band = power[(frequencies >= low_hz) & (frequencies <= high_hz)]
    return 10 * np.log10(band.sum() / len(piece) + 1e-9)


def measure_quality(samples: np.ndarray, phones: list[Phone]) -> Quality:
    """How well phone times fit the sound, float32 [n] at 16 kHz."""

    def levels(names: frozenset[str], trim: float, low_hz: float, high_hz: float, shortest_s: float) -> list[float]:
        found = [
            _band_level_db(
                samples, p.start_s + trim * p.duration_s, p.end_s - trim * p.duration_s, low_hz, high_hz
            )
            for p in phones
            if p.name in names and p.duration_s >= shortest_s
        ]
        return [level for level in found if np.isfinite(level)]

    silent = levels(frozenset({SILENCE}), 0.25, 60, 7800, 0.12)
    vowels = levels(VOWELS, 0.2, 60, 7800, 0.03)
    vowels_mid = levels(VOWELS, 0.2, 500, 4000, 0.03)
    closed_mid = levels(BILABIALS, 0.25, 500, 4000, 0.03)
    mean = lambda values: float(np.mean(values)) if values else float("nan")  # noqa: E731
    return Quality(mean(vowels) - mean(silent), mean(vowels_mid) - mean(closed_mid))


def _level(samples: np.ndarray, phones: list[Phone]) -> np.ndarray:
    """The sound at the corpus's common level."""
    loud = np.zeros(len(samples), bool)
    for phone in phones:
        if phone.name != SILENCE:
            loud[round(phone.start_s * SAMPLE_RATE) : round(phone.end_s * SAMPLE_RATE)] = True
    rms = float(np.sqrt(np.mean(samples[loud] ** 2))) if loud.any() else 0.0
    if rms < 1e-4:
        raise AlignmentError("the speech is silent")
    gain = min(_SPEECH_RMS / rms, 0.97 / float(np.abs(samples).max()))
    return samples * gain


def recorded_clips(
    prompt_set: PromptSet, aligner: Aligner | AlignmentWorker, espeak: Espeak, share: Path = SHARE
) -> Iterator[tuple[Clip, np.ndarray]]:
    """Aligned clips of one speaker and their sound; what does not align is left out."""
    for path, text in prompts(prompt_set, share):
        words = words_of(text)
        samples = read_g722(path)
        if not words or not _SHORTEST_S <= len(samples) / SAMPLE_RATE <= _LONGEST_S:
            continue
        # Every language has words of its own spelling: keep them apart in the aligner's dictionary.
        keys = words if prompt_set.language == "en" else [f"{prompt_set.language}_{word}" for word in words]
        pronunciations = {
            key: espeak.pronounce(word, "en-us" if prompt_set.language == "en" else prompt_set.language)
            for key, word in zip(keys, words, strict=True)
        }
        keys = [key for key in keys if pronunciations[key]]
        pronunciations = {key: phones for key, phones in pronunciations.items() if phones}
        try:
            phones = aligner.align(samples, keys, pronunciations)
            samples = _level(samples, phones)
        except AlignmentError:
            continue
        name = f"{prompt_set.speaker}_{'_'.join(path.relative_to(path.parents[1]).with_suffix('').parts[1:])}"
        yield _clip(name, prompt_set.speaker, text, "asterisk-core-sounds", prompt_set.licence, samples, phones)


def synthetic_clips(voice: str, speak: Speak, count: int, licence: str) -> Iterator[tuple[Clip, np.ndarray]]:
    """Clips of a synthetic voice; a held-out voice says held-out sentences only."""
    texts = sentences(2000 if voice in HELD_OUT_VOICES else count)
    if voice in HELD_OUT_VOICES:
        texts = [text for text in texts if split_of(text, "") == "heldout"][:count]
    rng = np.random.default_rng(sum(voice.encode()))
    for index, text in enumerate(texts):
        try:
            samples, phones = speak(text, rng)
            samples = _level(samples, phones)
        except AlignmentError:
            continue
        yield _clip(f"{voice}_{index:04d}", voice, text, voice, licence, samples, phones)


def _clip(
    name: str, voice: str, text: str, source: str, licence: str, samples: np.ndarray, phones: list[Phone]
) -> tuple[Clip, np.ndarray]:
    duration_s = len(samples) / SAMPLE_RATE
    rounded = tuple(Phone(p.name, round(p.start_s, 4), round(p.duration_s, 4)) for p in phones)
    return Clip(name, split_of(text, voice), voice, text, source, licence, duration_s, rounded), samples


def _speak_of(voice: str) -> Speak:
    if voice == "hibari":
        return hibari_voice()
    if voice.startswith("festival-"):
        return FestivalVoice(voice.removeprefix("festival-"))
    if voice == "piper-joe":
        return piper_voice()
    if voice == "espeak-many":
        return espeak_voices([f"{language}+{variant}" for language in _LANGUAGES for variant in _VARIANTS])
    if voice.startswith("espeak-"):
        return espeak_voice({"f3": "en-us+f3", "m3": "en-us+m3", "gb": "en+m7"}[voice.removeprefix("espeak-")])
    return flite_voice(voice)


def build_corpus(out: Path, share: Path = SHARE, scale: float = 1.0) -> list[Clip]:
    """Build the corpus in `out`; voices whose program or package is missing are left out with a line.

    Args:
        out: folder, made if needed; `manifest.json` is written last.
        share: where the Debian packages put their files.
        scale: of the number of sentences of the synthetic voices.
    """
    out.mkdir(parents=True, exist_ok=True)
    clips: list[Clip] = []
    dropped: Counter[str] = Counter()
    quality: dict[str, list[Quality]] = defaultdict(list)

    def keep(found: Iterator[tuple[Clip, np.ndarray]], voice: str) -> None:
        for clip, samples in tqdm(found, desc=voice, unit="clip", disable=not sys.stderr.isatty()):
            measured = measure_quality(samples, list(clip.phones))
            if not measured.is_good:
                dropped[voice] += 1
                continue
            quality[voice].append(measured)
            write_wav(out / f"{clip.name}.wav", samples)
            clips.append(replace(clip, folder=out))

    for voice, (count, licence) in _SYNTHETIC.items():
        try:
            keep(synthetic_clips(voice, _speak_of(voice), max(1, round(count * scale)), licence), voice)
        except (ImportError, FileNotFoundError, RuntimeError) as error:
            print(f"{voice}: left out, {error}")
    worker = AlignmentWorker()
    for prompt_set in PROMPT_SETS:
        keep(recorded_clips(prompt_set, worker, Espeak(), share), prompt_set.speaker)
    worker.close()
    write_manifest(out, clips)
    for line in summary(clips, quality, dropped):
        print(line)
    return clips


def summary(clips: list[Clip], quality: dict[str, list[Quality]], dropped: Counter[str]) -> Iterator[str]:
    """A line for every voice: minutes, clips dropped, mean alignment quality."""
    for voice in dict.fromkeys(clip.voice for clip in clips):
        minutes = {
            split: sum(c.duration_s for c in clips if c.voice == voice and c.split == split) / 60
            for split in ("train", "heldout")
        }
        silence_db = np.nanmean([q.silence_drop_db for q in quality[voice]])
        closure_db = np.nanmean([q.closure_drop_db for q in quality[voice]])
        yield (
            f"{voice:12s} train {minutes['train']:5.1f} min, heldout {minutes['heldout']:4.1f} min, "
            f"dropped {dropped[voice]:3d}, silence -{silence_db:.1f} dB, closures -{closure_db:.1f} dB"
        )
    for split in ("train", "heldout"):
        yield f"{split}: {sum(c.duration_s for c in clips if c.split == split) / 60:.1f} min"


def write_manifest(out: Path, clips: list[Clip]) -> None:
    """Write `manifest.json`, complete or not at all."""
    rows = []
    for clip in clips:
        row = asdict(clip)
        del row["folder"]
        rows.append({**row, "wav": f"{clip.name}.wav", "phones": [list(phone) for phone in clip.phones]})
    temporary = out / "manifest.json.part"
    temporary.write_text(json.dumps({"sample_rate": SAMPLE_RATE, "clips": rows}))
    temporary.replace(out / "manifest.json")


def load_corpus(folder: Path, split: str | None = None, voice: str | None = None) -> list[Clip]:
    """Clips of a corpus, of one split or voice if asked.

    Raises:
        ValueError: if there is no manifest, or nothing of that kind in it.
    """
    manifest = Path(folder) / "manifest.json"
    if not manifest.exists():
        raise ValueError(f"{folder} holds no manifest.json; build it with python -m training.synthetic.speech")
    clips = []
    for row in json.loads(manifest.read_text())["clips"]:
        row.pop("wav")
        clips.append(Clip(**{**row, "phones": tuple(parse_phones(row["phones"])), "folder": Path(folder)}))
    clips = [c for c in clips if split in (None, c.split) and voice in (None, c.voice)]
    if not clips:
        raise ValueError(f"{folder} holds no clip of split {split} and voice {voice}")
    return clips


def main() -> None:
    """Entry of `python -m training.synthetic.speech`."""
    parser = argparse.ArgumentParser(prog="python -m training.synthetic.speech", description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of the corpus")
    parser.add_argument("--share", type=Path, default=SHARE, help="where Debian packages put their files")
    parser.add_argument("--scale", type=float, default=1.0, help="of the number of synthetic sentences")
    arguments = parser.parse_args()
    build_corpus(arguments.out, arguments.share, arguments.scale)


if __name__ == "__main__":
    main()
