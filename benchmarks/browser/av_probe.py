"""Flashes, beeps and microphone of a page by its own clock: the Python side of av_probe.js, and the arithmetic.

All times are milliseconds of the page's `performance.now()`.
"""

from __future__ import annotations

import statistics
import wave
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from playwright.sync_api import Page

SCRIPT = Path(__file__).with_name("av_probe.js")
FRAME_MS = 40.0

START = """async () => await avProbe.start({
    video: document.querySelector('[data-testid="avatar"]'),
    microphone: window.avatar?.connection?.audioSender?.track ?? null,
})"""


@dataclass
class Readings:
    """What the probe saw, oldest first.

    Attributes:
        beeps, beep_ends: first and last loud sample of each stretch of sound that was played.
        flashes, flash_ends: first bright frame, and first frame after it that is not.
        mic_beeps: first loud sample of each stretch of sound the microphone captured.
        frames: shown. longest_gap_ms: between two of them. energy: sum of the squared samples that were played.
        output_gap_ms: the browser's sound output ran dry for so long between two drains, at most.
    """

    beeps: list[float] = field(default_factory=list)
    beep_ends: list[float] = field(default_factory=list)
    flashes: list[float] = field(default_factory=list)
    flash_ends: list[float] = field(default_factory=list)
    mic_beeps: list[float] = field(default_factory=list)
    frames: int = 0
    longest_gap_ms: float = 0.0
    energy: float = 0.0
    output_gap_ms: float = 0.0
    now_ms: float = 0.0

    def add(self, other: Readings) -> None:
        for name in ("beeps", "beep_ends", "flashes", "flash_ends", "mic_beeps"):
            getattr(self, name).extend(getattr(other, name))
        self.frames += other.frames
        self.energy += other.energy
        self.longest_gap_ms = max(self.longest_gap_ms, other.longest_gap_ms)
        self.output_gap_ms = max(self.output_gap_ms, other.output_gap_ms)
        self.now_ms = other.now_ms

    def since(self, start_ms: float, end_ms: float = float("inf")) -> Readings:
        """Only what happened in this time; frames, gap and energy stay those of everything."""
        cut = replace(self)
        for name in ("beeps", "beep_ends", "flashes", "flash_ends", "mic_beeps"):
            setattr(cut, name, [at for at in getattr(self, name) if start_ms <= at < end_ms])
        return cut


class Probe:
    """Measures in one page whose avatar is live. Start it, wait, drain it at least once a minute."""

    def __init__(self, page: Page):
        self._page = page
        self.readings = Readings()

    def start(self) -> dict[str, Any]:
        self._page.evaluate(SCRIPT.read_text())
        self.readings = Readings()
        return self._page.evaluate(START)

    def drain(self) -> Readings:
        """What happened since the last time; also added to `readings`."""
        found = self._page.evaluate("() => avProbe.drain()")
        new = Readings(
            beeps=found["beeps"],
            beep_ends=found["beepEnds"],
            flashes=found["flashes"],
            flash_ends=found["flashEnds"],
            mic_beeps=found["micBeeps"],
            frames=found["frames"],
            longest_gap_ms=found["longestGapMs"],
            energy=found["energy"],
            output_gap_ms=found["outputGapMs"],
            now_ms=found["nowMs"],
        )
        self.readings.add(new)
        return new

    def stop(self) -> None:
        self._page.evaluate("() => avProbe.stop()")


def offsets(readings: Readings, within_ms: float = 400.0) -> list[tuple[float, float]]:
    """(beep time, flash minus beep) of every beep with a flash near it; positive is picture late.

    Both must be nearest to each other, so that a lost flash does not pair with a neighbour's beep.
    """
    pairs = []
    for beep in readings.beeps:
        flash = _nearest(beep, readings.flashes)
        if flash is not None and abs(flash - beep) <= within_ms and _nearest(flash, readings.beeps) == beep:
            pairs.append((beep, flash - beep))
    return pairs


def latencies(starts: Sequence[float], ends: Sequence[float], longest_ms: float) -> list[float]:
    """Milliseconds from each start to the first end after it, where one comes before the next start.

    Beeps must be further apart than the latency; one whose end did not come within `longest_ms` is left out.
    """
    found = []
    for index, start in enumerate(starts):
        limit = min(start + longest_ms, starts[index + 1] if index + 1 < len(starts) else float("inf"))
        end = next((at for at in ends if start <= at < limit), None)
        if end is not None:
            found.append(end - start)
    return found


def summary(values: Sequence[float]) -> dict[str, float | int | None]:
    """Count, median, 95th percentile, least and most, to a tenth."""
    if not values:
        return {"count": 0, "median": None, "p95": None, "min": None, "max": None}
    ordered = sorted(values)
    p95 = ordered[min(len(ordered) - 1, int(np.ceil(0.95 * len(ordered))) - 1)]
    return {
        "count": len(ordered),
        "median": round(statistics.median(ordered), 1),
        "p95": round(p95, 1),
        "min": round(ordered[0], 1),
        "max": round(ordered[-1], 1),
    }


def write_beeps(
    path: Path,
    seconds: float,
    every_s: float = 0.96,
    beep_s: float = 0.2,
    lead_s: float = 0.48,
    rate: int = 16000,
    voiced: bool = False,
    quiet_every_s: float = 0.0,
    quiet_s: float = 0.0,
) -> list[float]:
    """Writes a WAV of beeps at known times and returns those times in seconds.

    With the defaults every beep begins on a frame of 40 ms. `voiced` makes a vowel of harmonics instead of a tone,
    which a speech detector takes for speech. Of every `quiet_every_s` the last `quiet_s` hold no beep.
    """
    count = int(round(seconds * rate))
    samples = np.zeros(count, dtype=np.float64)
    shape = _vowel(beep_s, rate) if voiced else 0.4 * np.sin(2 * np.pi * 880 * np.arange(int(beep_s * rate)) / rate)
    times = []
    for number in range(int((seconds - lead_s) / every_s) + 1):
        at = lead_s + number * every_s
        first = int(round(at * rate))
        is_quiet = quiet_every_s > 0 and at % quiet_every_s >= quiet_every_s - quiet_s
        if is_quiet or first + len(shape) > count:
            continue
        samples[first : first + len(shape)] = shape
        times.append(at)
    _write_wav(path, samples, rate)
    return times


def write_tone(path: Path, seconds: float, rate: int = 16000) -> None:
    """Writes a WAV that is loud from its first sample to its last."""
    t = np.arange(int(seconds * rate)) / rate
    _write_wav(path, 0.4 * np.cos(2 * np.pi * 440 * t), rate)


def _write_wav(path: Path, samples: np.ndarray, rate: int) -> None:
    """Mono, 16 bits; samples float in -1 … 1."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes((samples * 32767).astype("<i2").tobytes())


def _vowel(seconds: float, rate: int) -> np.ndarray:
    """An open vowel at 130 Hz with the first three formants of "a", from its first sample at full level."""
    t = np.arange(int(seconds * rate)) / rate
    sound = np.zeros_like(t)
    for harmonic in range(1, 31):
        hz = 130.0 * harmonic
        gain = sum(np.exp(-(((hz - formant) / width) ** 2)) for formant, width in FORMANTS_HZ)
        sound += (gain + 0.02) * np.sin(2 * np.pi * hz * t + 1.3 * harmonic)
    return 0.5 * sound / np.abs(sound).max()


FORMANTS_HZ = ((730.0, 120.0), (1090.0, 150.0), (2440.0, 200.0))


def _nearest(at: float, times: Sequence[float]) -> float | None:
    return min(times, key=lambda other: abs(other - at), default=None)
