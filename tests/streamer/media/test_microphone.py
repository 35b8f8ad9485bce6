from __future__ import annotations

import asyncio
import os
from fractions import Fraction

import av
import numpy as np
import pytest
from aiortc.mediastreams import MediaStreamError, MediaStreamTrack

from streamer.media.jitter import JitterStats
from streamer.media.microphone import Microphone, Resampler16k
from tests.streamer.media.client import Tone
from tests.streamer.media.simulated import settle

CHUNK = 23_040  # 480 ms


def sound(samples: np.ndarray, pts: int | None, rate: int = 48_000, layout: str = "stereo") -> av.AudioFrame:
    """A frame as aiortc delivers it, pts in 1/rate."""
    planes = np.repeat(samples.astype(np.int16), 2) if layout == "stereo" else samples.astype(np.int16)
    frame = av.AudioFrame.from_ndarray(planes[None], format="s16", layout=layout)
    frame.sample_rate = rate
    if pts is not None:
        frame.pts, frame.time_base = pts, Fraction(1, rate)
    return frame


def feed(microphone: Microphone, first: int, count: int, value: int = 1000) -> None:
    """Packets number first … of 20 ms, 960 samples of one value each."""
    for k in range(first, first + count):
        microphone.push(sound(np.full(960, value), 960 * k))


class ListTrack(MediaStreamTrack):
    kind = "audio"

    def __init__(self, frames: list[av.AudioFrame]):
        super().__init__()
        self._frames = list(frames)

    async def recv(self) -> av.AudioFrame:
        if self.readyState != "live" or not self._frames:
            raise MediaStreamError
        return self._frames.pop(0)


class EndlessTrack(ListTrack):
    async def recv(self) -> av.AudioFrame:
        await asyncio.Event().wait()
        raise AssertionError


def test_sound_comes_out_as_it_went_in() -> None:
    microphone = Microphone()
    tone = (8000 * np.sin(2 * np.pi * 300 * np.arange(24 * 960) / 48_000)).astype(np.int16)
    for k in range(24):
        microphone.push(sound(tone[960 * k : 960 * (k + 1)], 960 * k))
    taken = microphone.take(CHUNK)
    assert taken.dtype == np.int16 and taken.shape == (CHUNK,)
    assert np.abs(taken.astype(int) - tone).max() <= 1
    assert microphone.buffered_samples == 0


def test_short_is_filled_with_zeros_behind() -> None:
    microphone = Microphone()
    feed(microphone, 0, 2)
    taken = microphone.take(CHUNK)
    assert (taken[:1920] == 1000).all() and not taken[1920:].any()
    assert microphone.stats.starved_ms == pytest.approx(440)
    assert not microphone.take(960).any()


def test_a_lost_packet_keeps_its_time() -> None:
    """20 ms are missing in the stream: what follows is where it belongs, and the hole fades instead of clicking."""
    microphone = Microphone()
    feed(microphone, 0, 3, 5000)
    feed(microphone, 4, 3, 3000)
    taken = microphone.take(7 * 960).astype(int)
    assert (taken[4 * 960 :] == 3000).all()
    hole = taken[3 * 960 : 4 * 960]
    assert hole[0] == 5000 and (np.diff(hole) <= 0).all() and 2400 < hole[-1] < 2600
    assert microphone.stats.concealed_ms == pytest.approx(20)


def test_a_long_hole_fades_to_silence_in_40_ms() -> None:
    microphone = Microphone()
    feed(microphone, 0, 1, 5000)
    feed(microphone, 11, 1, 5000)
    taken = microphone.take(12 * 960)
    assert not taken[3 * 960 : 11 * 960].any()
    assert (taken[11 * 960 :] == 5000).all()


def test_time_is_kept_over_a_thousand_random_losses() -> None:
    chance = np.random.default_rng(0)
    microphone = Microphone()
    taken, next_take = [], 24
    for k in range(5000):
        if k == 0 or k > 4990 or chance.random() > 0.2:
            microphone.push(sound(np.full(960, k % 30_000), 960 * k))
        if k + 2 == next_take:  # a little behind what has come
            taken.append(microphone.take(CHUNK if taken else CHUNK - 1920))
            next_take += 24
    heard = np.concatenate(taken)
    starts = np.arange(0, len(heard) - 960, 960)
    values = heard[starts + 480]
    right = np.abs(values.astype(int) - starts // 960) <= 2
    assert right.mean() > 0.75  # every packet that came is within two packets of its own time, to the end
    assert right[-100:].mean() > 0.6


def test_zeros_that_covered_a_hole_are_not_put_in_again() -> None:
    """The peer was silent for 400 ms (DTX). The caller took zeros meanwhile: no lag is left behind."""
    microphone = Microphone()
    feed(microphone, 0, 24)
    microphone.take(CHUNK)
    microphone.take(960 * 20)  # nothing came: 400 ms of zeros
    feed(microphone, 44, 2)  # 400 ms later in the stream
    assert microphone.buffered_samples == 2 * 960
    assert microphone.stats.concealed_ms == 0


def test_sound_that_was_only_late_is_not_lost() -> None:
    microphone = Microphone()
    feed(microphone, 0, 24)
    microphone.take(CHUNK)
    microphone.take(960)
    feed(microphone, 24, 24)
    assert microphone.buffered_samples == CHUNK


def test_lag_is_bounded_at_200_ms() -> None:
    microphone = Microphone()
    feed(microphone, 0, 24)
    microphone.take(CHUNK)
    feed(microphone, 24, 24, 1)
    feed(microphone, 48, 24, 2)  # twice as much as is taken
    taken = microphone.take(CHUNK)
    assert microphone.buffered_samples == 9600
    assert microphone.stats.dropped_ms == pytest.approx(960 - 480 - 200)
    assert taken[0] == 1 and taken[-1] == 2


def test_the_first_request_gets_the_newest() -> None:
    microphone = Microphone()
    for k in range(40):
        microphone.push(sound(np.full(960, k), 960 * k))
    taken = microphone.take(CHUNK)
    assert taken[0] == 40 - 24 - 2 and microphone.buffered_samples == 2 * 960


def test_a_cushion_that_is_never_used_is_cut() -> None:
    microphone = Microphone()
    feed(microphone, 0, 24)
    microphone.take(CHUNK)
    feed(microphone, 24, 9)
    for chunk in range(7):
        feed(microphone, 33 + 24 * chunk, 24)
        microphone.take(CHUNK)
        assert microphone.buffered_samples == 9 * 960
    for chunk in range(7, 9):
        feed(microphone, 33 + 24 * chunk, 24)
        microphone.take(CHUNK)
    assert microphone.buffered_samples == 2 * 960
    assert microphone.stats.dropped_ms == pytest.approx(140)


def test_memory_is_bounded_when_nobody_takes() -> None:
    microphone = Microphone()
    feed(microphone, 0, 1000)
    assert microphone.buffered_samples == 48_000 + 9600
    assert len(microphone._blocks) <= 61


@pytest.mark.parametrize(("rate", "layout"), [(16_000, "mono"), (8_000, "mono"), (44_100, "stereo"), (48_000, "mono")])
def test_any_rate_and_layout_is_made_48_kHz_mono(rate: int, layout: str) -> None:
    microphone = Microphone()
    count = rate // 50
    tone = 9000 * np.sin(2 * np.pi * 500 * np.arange(count * 50) / rate)
    for k in range(50):
        microphone.push(sound(tone[count * k : count * (k + 1)], count * k, rate, layout))
    heard = microphone.take(40_000).astype(float)
    spectrum = np.abs(np.fft.rfft(heard * np.hanning(len(heard))))
    assert np.argmax(spectrum) * 48_000 / len(heard) == pytest.approx(500, abs=2)
    assert np.abs(heard[5000:35_000]).max() == pytest.approx(9000, rel=0.03)


def test_a_format_that_changes_in_the_middle_goes_on() -> None:
    microphone = Microphone()
    feed(microphone, 0, 5)
    microphone.push(sound(np.full(320, 700), 0, 16_000, "mono"))
    microphone.push(sound(np.full(320, 700), 320, 16_000, "mono"))
    feed(microphone, 5, 5)
    assert microphone.buffered_samples > 11 * 960


@pytest.mark.parametrize("pts", [4_294_752_256, -5_000_000, None])
def test_absurd_timestamps_make_no_flood_of_silence(pts: int | None) -> None:
    microphone = Microphone()
    feed(microphone, 0, 2)
    microphone.push(sound(np.full(960, 3), pts))
    feed(microphone, 2, 2)
    assert microphone.buffered_samples == 5 * 960


def test_level_follows_loudness() -> None:
    microphone = Microphone()
    assert microphone.level == 0.0
    feed(microphone, 0, 50, 16_384)
    assert microphone.level == pytest.approx(0.5, abs=0.01)
    feed(microphone, 50, 50, 0)
    assert microphone.level < 0.01


def test_tracks_are_drained_and_figures_kept() -> None:
    async def main() -> None:
        microphone = Microphone(now=lambda: 77.0)
        jitter = JitterStats(lost=3, late=2)
        microphone.attach(ListTrack([sound(np.full(960, 5), 960 * k) for k in range(10)]), jitter)
        await settle()
        assert microphone.buffered_samples == 9600
        stats = microphone.stats
        assert (stats.packets, stats.lost, stats.late, stats.last_packet_s) == (10, 3, 2, 77.0)
        await microphone.close()

    asyncio.run(main())


def test_a_new_track_replaces_the_one_before_and_close_leaves_no_task() -> None:
    async def main() -> None:
        microphone = Microphone()
        first, second = EndlessTrack([]), EndlessTrack([])
        microphone.attach(first)
        await settle()
        microphone.attach(second)
        await settle()
        assert len(asyncio.all_tasks()) == 2
        microphone.detach(first)  # not the one that is read
        await settle()
        assert len(asyncio.all_tasks()) == 2
        await microphone.close()
        await microphone.close()
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(main())


# --- 16 kHz


def test_16_kHz_is_a_third_of_every_block_and_one_stream() -> None:
    tone = (9000 * np.sin(2 * np.pi * 440 * np.arange(48_000) / 48_000)).astype(np.int16)
    resampler, whole = Resampler16k(), Resampler16k()
    cuts = [0, 960, 960 + 23_040, 30_000, 30_003, 48_000]
    parts = [resampler.push(tone[start:end]) for start, end in zip(cuts, cuts[1:], strict=False)]
    assert [len(part) for part in parts] == [(end - start) // 3 for start, end in zip(cuts, cuts[1:], strict=False)]
    joined = np.concatenate(parts)
    assert np.array_equal(joined, whole.push(tone))
    expected = 9000 * np.sin(2 * np.pi * 440 * (np.arange(16_000) - 16) / 16_000)
    assert np.abs(joined[200:] - expected[200:]).max() < 30


def test_16_kHz_leaves_out_what_would_alias() -> None:
    hiss = (9000 * np.sin(2 * np.pi * 15_000 * np.arange(48_000) / 48_000)).astype(np.int16)
    assert np.abs(Resampler16k().push(hiss)[100:]).max() < 100


def test_16_kHz_refuses_other_sound() -> None:
    with pytest.raises(ValueError, match="int16"):
        Resampler16k().push(np.zeros(960, np.float32))
    assert len(Resampler16k().push(np.zeros(0, np.int16))) == 0


def test_a_microphone_that_is_detached_keeps_no_threads() -> None:
    async def scenario() -> None:
        before = len(os.listdir("/proc/self/task"))
        microphone, track = Microphone(), Tone()
        microphone.attach(track)
        async with asyncio.timeout(20):
            while not microphone.buffered_samples:
                await asyncio.sleep(0.01)
        microphone.detach(track)
        await microphone.close()
        assert len(os.listdir("/proc/self/task")) == before

    asyncio.run(scenario())
