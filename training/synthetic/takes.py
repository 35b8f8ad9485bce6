"""Takes: some twenty seconds of one presenter, as sound, face, motion and emotion, ready to be drawn."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from models.motion import motion_frames
from training.synthetic.emotions import add_emotion, draw_emotion
from training.synthetic.gestures import GestureTrack, gesture_track
from training.synthetic.phones import Phone
from training.synthetic.rig import FramePose
from training.synthetic.script import write_listening_script, write_script
from training.synthetic.speech import Clip
from training.synthetic.visemes import FPS, viseme_track

FRAMINGS = ("head", "upper")
_LISTENING_SHARE = 0.08
_ENERGY = (0.7, 1.2)
_REAL_SHARE = 0.5  # of takes that use recorded speakers, where the corpus has both
_SYNTHETIC_VOICES = ("hibari", "slt", "rms", "kal16", "awb", "espeak")


@dataclass(frozen=True)
class TakeSpec:
    """What identifies a take: the same spec and corpus give the same take.

    Attributes:
        presenter: name of the identity.
        index: number of the take of this presenter and split, ≥ 0.
        split: "train" or "heldout"; decides the speech and whether it is varied.
        framing: "head" or "upper".
        seed: of the whole run.
        voice: only speech of this voice; "" for any.
        n_frames: length, ≥ 1.
    """

    presenter: str
    index: int
    split: str = "train"
    framing: str = "head"
    seed: int = 0
    voice: str = ""
    n_frames: int = 20 * FPS

    def __post_init__(self) -> None:
        if self.split not in ("train", "heldout"):
            raise ValueError(f"split must be train or heldout, got {self.split!r}")
        if self.framing not in FRAMINGS:
            raise ValueError(f"framing must be one of {FRAMINGS}, got {self.framing!r}")
        if self.index < 0 or self.n_frames < 1:
            raise ValueError(f"index {self.index} or n_frames {self.n_frames} is too small")

    @property
    def name(self) -> str:
        """File name of the take, without its ending."""
        return f"{self.presenter}_{self.framing}_{self.split}_{self.index:04d}"

    def generator(self) -> np.random.Generator:
        """The random numbers of this take."""
        return np.random.default_rng([self.seed, zlib.crc32(self.name.encode())])


@dataclass(frozen=True)
class Take:
    """A take, ready to be drawn. n is the number of frames.

    Attributes:
        spec: what it was made from.
        samples: float32 [n · 640], 16 kHz.
        phones: with times from the start of the take.
        face: float32 [n, 52], what the sound alone decides.
        shown_face: float32 [n, 52], the same with the emotion.
        closure: float32 [n], 1 where p, b, m shut the lips.
        motion: float32 [n, 11], `models.motion.MOTION_CHANNELS`.
        motion_seed, energy: of the motion planner.
        emotion, strength, prompt: the emotion and the text that asks for it.
        texts: what is said.
        voice: who says it.
        gestures: of the arms, or None where they hang.
    """

    spec: TakeSpec
    samples: np.ndarray
    phones: tuple[Phone, ...]
    face: np.ndarray
    shown_face: np.ndarray
    closure: np.ndarray
    motion: np.ndarray
    motion_seed: int
    energy: float
    emotion: str
    strength: float
    prompt: str
    texts: tuple[str, ...]
    voice: str
    gestures: GestureTrack | None = None

    @property
    def n_frames(self) -> int:
        """Length in video frames."""
        return len(self.face)

    def poses(self) -> Iterator[FramePose]:
        """One pose a frame, for a `Presenter`."""
        for index in range(self.n_frames):
            arms = self.gestures.pose(index) if self.gestures else None
            yield FramePose(face=self.shown_face[index], motion=self.motion[index], arms=arms)


def _choose_voice(clips: Sequence[Clip], rng: np.random.Generator) -> list[Clip]:
    """The clips of one voice, drawn: recorded and synthetic voices alike often, long voices more often."""
    by_voice: dict[str, list[Clip]] = {}
    for clip in clips:
        by_voice.setdefault(clip.voice, []).append(clip)
    synthetic = {voice for voice in by_voice if voice.startswith(_SYNTHETIC_VOICES)}
    recorded = set(by_voice) - synthetic
    pool = sorted(recorded if recorded and (not synthetic or rng.random() < _REAL_SHARE) else synthetic)
    minutes = np.sqrt([sum(clip.duration_s for clip in by_voice[voice]) for voice in pool])
    return by_voice[pool[rng.choice(len(pool), p=minutes / minutes.sum())]]


def make_take(spec: TakeSpec, clips: Sequence[Clip]) -> Take:
    """Make the take of a spec from a corpus.

    Raises:
        ValueError: if the corpus has no clip of that split and voice.
    """
    rng = spec.generator()
    usable = [c for c in clips if c.split == spec.split and spec.voice in ("", c.voice)]
    if not usable:
        raise ValueError(f"no clip of split {spec.split!r} and voice {spec.voice!r} in the corpus")
    is_training = spec.split == "train"
    if is_training and rng.random() < _LISTENING_SHARE:
        script = write_listening_script(spec.n_frames, rng)
    else:
        script = write_script(_choose_voice(usable, rng), spec.n_frames, rng, is_augmented=is_training)
    face, closure = viseme_track(script.phones, spec.n_frames, script.loudness)
    emotion, strength, prompt = draw_emotion(rng)
    motion_seed, energy = int(rng.integers(2**31)), float(rng.uniform(*_ENERGY))
    gestures = gesture_track(script.phones, spec.n_frames, rng) if spec.framing == "upper" else None
    return Take(
        spec=spec,
        samples=script.samples,
        phones=script.phones,
        face=face,
        shown_face=add_emotion(face, closure, emotion, strength),
        closure=closure,
        motion=motion_frames(motion_seed, 0, spec.n_frames, energy),
        motion_seed=motion_seed,
        energy=energy,
        emotion=emotion,
        strength=strength,
        prompt=prompt,
        texts=script.texts,
        voice=script.voice,
        gestures=gestures,
    )
