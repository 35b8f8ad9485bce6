"""Hours of speech with its viseme tracks in memory, and batches of it heard through rooms, microphones and noise."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.conditions import MEL_CONTEXT_SAMPLES, SAMPLE_RATE, SAMPLES_PER_FRAME, LogMel, mel_filterbank, scaled_log
from training.synthetic.phones import ARPABET, Phone
from training.synthetic.script import change_speed, loudness_track, noise
from training.synthetic.speech import Clip
from training.synthetic.visemes import FPS, silence_track, viseme_track

PHONES = tuple(sorted(ARPABET))
_PAUSE_FRAMES = (6, 20)  # of silence before a clip
_PHONE_INDEX = {name: index for index, name in enumerate(PHONES)}
_RECORDED_WEIGHT = 2.0  # recordings are rarer than synthetic speech, and what will be heard


@dataclass
class Track:
    """A stretch of speech of one voice with its truth; F frames.

    Attributes:
        voice: who speaks.
        samples: int16 [640·F].
        face: float16 [F, 52].
        closure, silence: float16 [F] in 0 … 1, how far p, b, m and pauses shut the lips.
        manner: float16 [F, 2] in 0 … 1: accent, and how long nobody has been speaking.
        phones: uint8 [F, 2], phone at a quarter and at three quarters of a frame, as in `PHONES`.
    """

    voice: str
    samples: np.ndarray
    face: np.ndarray
    closure: np.ndarray
    silence: np.ndarray
    manner: np.ndarray
    phones: np.ndarray

    @property
    def frame_count(self) -> int:
        return len(self.face)


def make_track(clip: Clip, speed: float, rng: np.random.Generator) -> Track:
    """A clip at a speed (pitch rises with it), with a pause before it."""
    said = change_speed(clip.samples(), speed) if speed != 1 else clip.samples()
    pause = int(rng.integers(*_PAUSE_FRAMES))
    count = pause + -(-len(said) // SAMPLES_PER_FRAME) + 4
    sound = np.zeros(count * SAMPLES_PER_FRAME, np.float32)
    sound[pause * SAMPLES_PER_FRAME :][: len(said)] = said
    phones = [Phone(p.name, p.start_s / speed + pause / FPS, p.duration_s / speed) for p in clip.phones]
    loudness = np.ones(count, np.float32)
    loudness[pause:] = loudness_track(said, count - pause)
    face, closure = viseme_track(phones, count, loudness)
    silence = silence_track(phones, count)
    return Track(
        voice=clip.voice,
        samples=(np.clip(sound, -1, 1) * 32767).astype(np.int16),
        face=face.astype(np.float16),
        closure=closure.astype(np.float16),
        silence=silence.astype(np.float16),
        manner=np.stack([accent_track(loudness, silence), listening_track(silence)], axis=1).astype(np.float16),
        phones=_phone_track(phones, count),
    )


def accent_track(loudness: np.ndarray, silence: np.ndarray) -> np.ndarray:
    """How stressed each frame is, float [F] in 0 … 1: louder than usual, smoothed to the pace of a head."""
    louder = np.clip((loudness - 1) / 0.12, 0, 1) * (1 - silence)
    ages = np.arange(-6, 7)
    weights = np.exp(-0.5 * (ages / 2.5) ** 2)
    return np.convolve(np.pad(louder, 6, mode="edge"), weights / weights.sum(), mode="valid")


def listening_track(silence: np.ndarray) -> np.ndarray:
    """How long nobody has been speaking, float [F]: 0 while somebody speaks, up to 1 from 0.6 to 1.4 s of silence on.

    It falls within a quarter of a second: what a listener had begun ends softly.
    """
    found, level, quiet_frames = np.zeros(len(silence)), 0.0, 0
    for index, is_quiet in enumerate(silence > 0.5):
        quiet_frames = quiet_frames + 1 if is_quiet else 0
        level = max(min(1.0, (quiet_frames - 15) / 20), level - 1 / 6, 0.0)
        found[index] = level
    return found


def _phone_track(phones: Sequence[Phone], count: int) -> np.ndarray:
    names = np.full(4 * count, _PHONE_INDEX["SIL"], np.uint8)  # quarters of frames
    for phone in phones:
        first, last = round(phone.start_s * FPS * 4), round(phone.end_s * FPS * 4)
        names[first:last] = _PHONE_INDEX[phone.name]
    return names.reshape(count, 4)[:, 1::2]


@dataclass(frozen=True)
class HearingConfig:
    """How differently the same speech is heard; shares are of the segments of a batch."""

    warp: tuple[float, float] = (0.84, 1.2)  # of frequencies: length of the speaker's throat
    gain_db: tuple[float, float] = (-6.0, 7.0)  # mean and deviation
    noisy_share: float = 0.6
    snr_db: tuple[float, float] = (3.0, 35.0)
    floor_db: tuple[float, float] = (-95.0, -45.0)  # white noise that is always there
    room_share: float = 0.4
    room_s: tuple[float, float] = (0.08, 0.6)
    narrow_share: float = 0.15  # telephone bands
    colour: float = 0.2  # deviation of the microphone's curve, in log-mel units
    mel_noise: float = 0.06
    masked_bands: int = 8  # at most, in one of two masks a segment
    listening_share: float = 0.06  # segments in which nobody speaks


@dataclass(frozen=True)
class Heard:
    """A batch: mels [B, 4·(context + S), bins], ahead of the truth of its S frames by the look-ahead."""

    mels: Tensor
    face: Tensor
    closure: Tensor
    silence: Tensor
    manner: Tensor
    phones: Tensor


class SpeechBank:
    """All tracks end to end, and random segments of them."""

    def __init__(self, tracks: Iterable[Track], config: HearingConfig, bins: int, seed: int = 0) -> None:
        by_voice: dict[str, list[Track]] = defaultdict(list)
        for track in tracks:
            by_voice[track.voice].append(track)
        self.config = config
        self.rng = np.random.default_rng(seed)
        ordered = [track for voice in by_voice.values() for track in voice]
        self.samples = np.concatenate([track.samples for track in ordered])
        self.face, self.closure, self.silence, self.manner, self.phones = (
            torch.from_numpy(np.concatenate([getattr(track, name) for track in ordered]))
            for name in ("face", "closure", "silence", "manner", "phones")
        )
        self.minutes = {v: sum(t.frame_count for t in own) / FPS / 60 for v, own in by_voice.items()}
        lengths = np.array([round(minutes * 60 * FPS) for minutes in self.minutes.values()])
        self._first = np.cumsum(lengths) - lengths
        self._length = lengths
        share = np.sqrt(lengths) * [1.0 if is_synthetic(voice) else _RECORDED_WEIGHT for voice in self.minutes]
        self._share = share / share.sum()
        self._noise = _noises(self.samples, self.rng)
        self._ear = Ear(config, bins)

    def batch(self, size: int, frames: int, context_frames: int, look_ahead_frames: int) -> Heard:
        """`size` segments of `frames` frames, and the sound of `context_frames` before them."""
        voices = self.rng.choice(len(self._share), size, p=self._share)
        reach = context_frames + frames + look_ahead_frames + 1
        room = np.maximum(self._length[voices] - reach, 1)
        starts = self._first[voices] + context_frames + (self.rng.random(size) * room).astype(int)
        truth = torch.from_numpy(starts[:, None] + np.arange(frames))
        count = (context_frames + frames) * SAMPLES_PER_FRAME + MEL_CONTEXT_SAMPLES
        begin = (starts + look_ahead_frames - context_frames) * SAMPLES_PER_FRAME - MEL_CONTEXT_SAMPLES
        pieces = [self.samples[first : first + count] for first in begin]
        sound = torch.from_numpy(np.stack(pieces)).float() / 32768
        face, closure, silence, manner = (
            x[truth].float() for x in (self.face, self.closure, self.silence, self.manner)
        )
        phones = self.phones[truth].long()
        listening = torch.from_numpy(self.rng.random(size) < self.config.listening_share)
        sound[listening], face[listening], closure[listening], silence[listening] = 0.0, 0.0, 0.0, 1.0
        manner[listening] = torch.tensor([0.0, 1.0])
        phones[listening] = _PHONE_INDEX["SIL"]
        return Heard(self._ear(sound, self._noise, self.rng), face, closure, silence, manner, phones)


def is_synthetic(voice: str) -> bool:
    return voice.startswith(("hibari", "slt", "rms", "kal16", "awb", "espeak", "piper", "festival"))


def _noises(samples: np.ndarray, rng: np.random.Generator, seconds: int = 40) -> np.ndarray:
    """Backgrounds one after the other, float32 [n], r.m.s. about 1: hiss, rumble, hum, babble, clatter, tunes."""
    count = seconds * SAMPLE_RATE
    times_s = np.arange(count) / SAMPLE_RATE
    found = [noise(count, 1.0, colour, rng) for colour in (0.0, 0.3, 0.6, 1.0, 1.5)]
    for base_hz in (50, 60, 120):
        found.append(np.sum([np.sin(2 * np.pi * base_hz * k * times_s + k) / k for k in range(1, 12)], axis=0))
    for talkers in (4, 8, 16):
        starts = rng.integers(max(len(samples) - count, 1), size=talkers)
        found.append(np.sum([np.resize(samples[s : s + count], count).astype(np.float64) for s in starts], axis=0))
    for rate_hz in (3, 8):  # keys, cups
        clatter = np.zeros(count)
        for hit in rng.integers(count - 4000, size=seconds * rate_hz):
            length = int(rng.integers(300, 4000))
            clatter[hit : hit + length] += rng.normal(size=length) * np.exp(-6 * np.arange(length) / length)
        found.append(clatter)
    for _ in range(3):  # notes
        tune = np.zeros(count)
        for start in range(0, count - SAMPLE_RATE, SAMPLE_RATE // 4):
            pitch_hz = 110 * 2 ** (rng.integers(36) / 12)
            note = times_s[:SAMPLE_RATE]
            tune[start : start + SAMPLE_RATE] += np.exp(-3 * note) * sum(
                np.sin(2 * np.pi * pitch_hz * k * note) / k for k in range(1, 8)
            )
        found.append(tune)
    return np.concatenate([x / (np.sqrt(np.mean(x**2)) + 1e-9) for x in found]).astype(np.float32)


class Ear(nn.Module):
    """Sound → log-mel, heard in a random room through a random microphone."""

    filterbanks: Tensor

    def __init__(self, config: HearingConfig, bins: int, warps: int = 15) -> None:
        super().__init__()
        self.config = config
        self.log_mel = LogMel(bins)
        low, high = np.log(config.warp)
        banks = [warped_filterbank(bins, float(np.exp(warp))) for warp in np.linspace(low, high, warps)]
        self.register_buffer("filterbanks", torch.stack(banks), persistent=False)
        self._hiss = torch.randn(4_000_000)

    @torch.no_grad()
    def forward(self, sound: Tensor, noises: np.ndarray, rng: np.random.Generator) -> Tensor:
        """Sound [B, S] → mels [B, 4·frames, bins]."""
        config, size = self.config, sound.shape[0]
        uniform = lambda limits: torch.from_numpy(rng.uniform(limits[0], limits[1], (size, 1)).astype(np.float32))  # noqa: E731
        is_in = lambda share: torch.from_numpy(rng.random((size, 1)) < share)  # noqa: E731
        roomy = is_in(config.room_share)[:, 0]
        if roomy.any():
            sound[roomy] = self._in_a_room(sound[roomy], rng)
        level = sound.square().mean(1, keepdim=True).sqrt().clamp_min(0.02)
        starts = rng.integers(len(noises) - sound.shape[1], size=size)
        background = torch.from_numpy(noises[starts[:, None] + np.arange(sound.shape[1])])
        loudness = level * 10 ** (-uniform(config.snr_db) / 20) * is_in(config.noisy_share)
        sound = sound + loudness * background
        sound = sound * 10 ** (torch.from_numpy(rng.normal(*config.gain_db, (size, 1))).float() / 20)
        sound = sound + 10 ** (uniform(config.floor_db) / 20) * self._hiss_like(sound, rng)
        power = self.log_mel.power(sound.clamp(-1, 1))
        banks = self.filterbanks[torch.from_numpy(rng.integers(len(self.filterbanks), size=size))]
        mels = scaled_log(banks @ power)
        mels = mels + config.colour * smooth_colour(size, mels.shape[2]) + config.mel_noise * self._hiss_like(mels, rng)
        return self._narrowed(mels, is_in(config.narrow_share), rng)

    def _hiss_like(self, values: Tensor, rng: np.random.Generator) -> Tensor:
        """White noise of unit deviation from a store: drawing it anew would cost a fifth of the training."""
        start = int(rng.integers(len(self._hiss) - values.numel()))
        return self._hiss[start : start + values.numel()].view_as(values)

    def _in_a_room(self, sound: Tensor, rng: np.random.Generator) -> Tensor:
        """One room for the batch: the direct sound and a tail that dies away."""
        count = SAMPLE_RATE // 2
        decay_s, wet = rng.uniform(*self.config.room_s), rng.uniform(0.1, 0.6)
        times_s = torch.arange(count) / SAMPLE_RATE
        tail = torch.randn(count) * torch.exp(-6.9 * times_s / decay_s)
        tail[: int(rng.integers(16, 160))] = 0
        tail = wet * tail / tail.square().sum().sqrt()
        tail[0] = 1.0
        length = sound.shape[1] + count
        heard = torch.fft.irfft(torch.fft.rfft(sound, length) * torch.fft.rfft(tail, length), length)
        return heard[:, : sound.shape[1]]

    def _narrowed(self, mels: Tensor, is_narrow: Tensor, rng: np.random.Generator) -> Tensor:
        """Telephone bands in some segments, and one or two masks of neighbouring bands in all."""
        size, _, bins = mels.shape
        band = torch.arange(bins)
        keeps = torch.ones(size, bins, dtype=torch.bool)
        for _ in range(2):
            first = torch.from_numpy(rng.integers(bins, size=(size, 1)))
            width = torch.from_numpy(rng.integers(self.config.masked_bands + 1, size=(size, 1)))
            keeps &= (band < first) | (band >= first + width)
        mels = torch.where(keeps[:, None], mels, mels.mean(1, keepdim=True))
        telephone = (band >= 6) & (band < round(0.73 * bins))  # 300 … 3400 Hz
        return torch.where((is_narrow & ~telephone)[:, None], torch.full_like(mels, -1.6), mels)


def smooth_colour(batch: int, bins: int) -> Tensor:
    """Smooth random curves over the bins, [batch, 1, bins], unit deviation: microphones and rooms."""
    return F.interpolate(torch.randn(batch, 1, 8), size=bins, mode="linear", align_corners=True)


def warped_filterbank(bins: int, warp: float) -> Tensor:
    """The mel filters [bins, 257] for speech whose formants lie `warp` times higher."""
    filters = mel_filterbank(bins)
    source = (torch.arange(filters.shape[1]) * warp).clamp_max(filters.shape[1] - 1)
    low = source.floor().long()
    high = (low + 1).clamp_max(filters.shape[1] - 1)
    return torch.lerp(filters[:, low], filters[:, high], (source - low).expand_as(filters))
