"""Scripts of takes: which clips are heard when, with pauses, levels and background noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from training.synthetic.phones import SILENCE, Phone
from training.synthetic.speech import Clip
from training.synthetic.visemes import FPS
from training.synthetic.voices import SAMPLE_RATE

FRAME_SAMPLES = SAMPLE_RATE // FPS

_SPEEDS = (0.86, 1.18)  # resampling: tempo and pitch together
_PAUSE_S = (0.3, 0.9)
_LONG_PAUSE_S = (1.5, 3.5)
_LONG_PAUSE_SHARE = 0.12
_GAIN_DB = (-10.0, 4.0)
_NOISY_SHARE = 0.4
_NOISE_DB = (-62.0, -38.0)  # below full scale, of noisy takes
_ROOM_TONE_DB = (-90.0, -66.0)
_LOUDNESS_PER_DB = 0.02
_LOUDNESS_LIMITS = (0.82, 1.15)


@dataclass(frozen=True)
class Script:
    """What is heard in a take.

    Attributes:
        samples: float32 [n_frames · 640], 16 kHz, -1 … 1.
        phones: with times from the start of the take.
        loudness: float32 [n_frames], scale of the mouth's opening, 1 is usual.
        texts: what is said, in order; empty in a take of listening.
        voice: who speaks, "" in a take of listening.
    """

    samples: np.ndarray
    phones: tuple[Phone, ...]
    loudness: np.ndarray
    texts: tuple[str, ...]
    voice: str


def noise(count: int, rms: float, colour: float, rng: np.random.Generator) -> np.ndarray:
    """Noise float64 [count] with a spectrum that falls as f^-colour (0 white, 0.5 pink, 1 brown)."""
    spectrum = np.fft.rfft(rng.normal(size=count))
    frequencies = np.maximum(np.fft.rfftfreq(count, 1 / SAMPLE_RATE), 60.0)
    shaped = np.fft.irfft(spectrum * frequencies**-colour, count)
    return shaped * rms / np.sqrt(np.mean(shaped**2))


def change_speed(samples: np.ndarray, speed: float) -> np.ndarray:
    """Samples [n] played `speed` times faster (pitch rises with it), [n / speed]."""
    from scipy.signal import resample

    padded = np.pad(samples, SAMPLE_RATE // 20)  # resampling by Fourier transform is circular
    fast = resample(padded, round(len(padded) / speed))
    margin = round(SAMPLE_RATE / 20 / speed)
    return fast[margin : margin + round(len(samples) / speed)]


def loudness_track(samples: np.ndarray, n_frames: int) -> np.ndarray:
    """Scale of the mouth's opening, float32 [n_frames]: louder than the mean of the speech opens wider.

    Args:
        samples: float [n], 16 kHz; padded or cut to the frames.
        n_frames: ≥ 1.
    """
    wanted = n_frames * FRAME_SAMPLES
    padded = np.pad(samples[:wanted].astype(np.float64), (0, max(wanted - len(samples), 0)))
    power = (padded.reshape(n_frames, FRAME_SAMPLES) ** 2).mean(1)
    smooth = np.convolve(np.pad(power, 1, mode="edge"), [0.25, 0.5, 0.25], mode="valid")
    level_db = 10 * np.log10(smooth + 1e-9)
    voiced = level_db > level_db.max() - 25
    scale = 1 + _LOUDNESS_PER_DB * (level_db - level_db[voiced].mean())
    return np.clip(scale, *_LOUDNESS_LIMITS).astype(np.float32)


def write_script(
    clips: Sequence[Clip], n_frames: int, rng: np.random.Generator, is_augmented: bool = True
) -> Script:
    """A script of clips drawn at random, with pauses between them.

    Args:
        clips: of one voice.
        n_frames: length of the take, ≥ 1.
        is_augmented: whether speed, level and noise vary; the order and the pauses always do.

    Raises:
        ValueError: if there are no clips.
    """
    if not clips:
        raise ValueError("a script needs at least one clip")
    total = n_frames * FRAME_SAMPLES
    sound = np.zeros(total)
    loudness = np.ones(n_frames, np.float32)
    phones: list[Phone] = []
    texts: list[str] = []
    # Clips start on whole frames: their loudness is then measured on the frames of the take.
    frame = round(rng.uniform(*_PAUSE_S) * FPS)
    while frame < n_frames:
        if rng.random() < _LONG_PAUSE_SHARE:
            frame += round(rng.uniform(*_LONG_PAUSE_S) * FPS)
            continue
        clip = clips[int(rng.integers(len(clips)))]
        speed = rng.uniform(*_SPEEDS) if is_augmented else 1.0
        said = change_speed(clip.samples(), speed) if is_augmented else clip.samples()
        length = -(-len(said) // FRAME_SAMPLES)
        if frame + length > n_frames and texts:
            break  # no clip is cut off, unless it is the only one
        first = frame * FRAME_SAMPLES
        fitting = said[: total - first]
        sound[first : first + len(fitting)] += fitting
        loudness[frame : frame + length] = loudness_track(said, length)[: n_frames - frame]
        phones += [Phone(p.name, p.start_s / speed + frame / FPS, p.duration_s / speed) for p in clip.phones]
        texts.append(clip.text)
        frame += length + round(rng.uniform(*_PAUSE_S) * FPS)
    if is_augmented:
        sound = sound * 10 ** (rng.uniform(*_GAIN_DB) / 20)
    sound = sound + _background(total, rng, is_augmented and rng.random() < _NOISY_SHARE)
    kept = tuple(phone for phone in phones if phone.start_s < n_frames / FPS)
    return Script(np.clip(sound, -1, 1).astype(np.float32), kept, loudness, tuple(texts), clips[0].voice)


def write_listening_script(n_frames: int, rng: np.random.Generator) -> Script:
    """A script in which nobody speaks: digital silence, room tone or louder noise; the mouth stays shut."""
    total = n_frames * FRAME_SAMPLES
    kind = rng.integers(3)
    sound = np.zeros(total) if kind == 0 else _background(total, rng, kind == 2)
    phones = (Phone(SILENCE, 0.0, n_frames / FPS),)
    return Script(np.clip(sound, -1, 1).astype(np.float32), phones, np.ones(n_frames, np.float32), (), "")


def _background(count: int, rng: np.random.Generator, is_noisy: bool) -> np.ndarray:
    level_db = rng.uniform(*(_NOISE_DB if is_noisy else _ROOM_TONE_DB))
    tone = noise(count, 10 ** (level_db / 20), rng.uniform(0, 1), rng)
    if is_noisy and rng.random() < 0.5:  # a slow swell, as of traffic or a fan
        phase = rng.uniform(0, 2 * np.pi)
        swell = np.sin(2 * np.pi * rng.uniform(0.05, 0.4) * np.arange(count) / SAMPLE_RATE + phase)
        tone = tone * (1 + 0.6 * swell)
    return tone
