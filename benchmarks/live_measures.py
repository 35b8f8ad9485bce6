"""What bench_live.py measures: one function a command. All of it in a real page against a real server."""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.browser.av_probe import Probe, Readings, latencies, offsets, summary, write_beeps, write_tone
from benchmarks.browser.live_server import LiveServer, cpu_s
from benchmarks.browser.steps import by_id, open_page, start, wait_until

IN_SYNC_MS = 60.0
SETTLING_S = 5.0
BEEP_EVERY_S = 0.96
MIC_EVERY_S = 2.53  # so that the beeps fall anywhere in a chunk
SENTENCE = "Good morning, and welcome. This is the first of several sentences. The second one is a little longer."


@dataclass
class Run:
    """One run of a command: the server, the browser, and what is found.

    Attributes:
        rows: of the printed table: what, figure, remark.
        found: of the JSON.
    """

    server: LiveServer
    browser: Any
    folder: Path
    rows: list[tuple[str, str, str]] = field(default_factory=list)
    found: dict[str, Any] = field(default_factory=dict)

    def row(self, what: str, figure: Any, remark: str = "") -> None:
        self.rows.append((what, str(figure), remark))

    @contextmanager
    def page(self, query: str, url: str | None = None) -> Iterator[Any]:
        """The page, not started, of the server or of what stands before it. `bypass_csp` lets the probe in."""
        context = self.browser.new_context(viewport={"width": 1280, "height": 800}, bypass_csp=True)
        page = context.new_page()
        try:
            open_page(page, f"{url or self.server.url}/?{query}")
            yield page
        finally:
            context.close()

    def figures(self, page: Any) -> dict[str, Any]:
        return page.evaluate("avatarStats()")


# -- start -------------------------------------------------------------------------------------------------


def measure_start(run: Run, options: argparse.Namespace) -> None:
    first_frames = []
    for _ in range(options.starts):
        with run.page("mic=off" if options.no_microphone else "mic=on") as page:
            start(page)
            first_frames.append(run.figures(page)["firstFrameMs"])
            page.click(by_id("stop"))
            wait_until(page, "avatarStats().state === 'idle'")
            page.wait_for_timeout(500)
    run.found["first_frame_ms"] = {"all": first_frames, **summary(first_frames)}
    run.row("click → first frame, median ms", summary(first_frames)["median"], f"of {first_frames}")

    with run.page("mic=on") as page:
        start(page)
        page.wait_for_timeout(int(SETTLING_S * 1000))
        before, began = run.figures(page), time.monotonic()
        used = cpu_s(run.server.pid), cpu_s(run.server.engine_pid())
        rungs: Counter[str] = Counter()
        fps = []
        for second in range(int(options.seconds)):
            if second % 12 == 2:
                page.evaluate("avatar.say('The quick brown fox jumps over the lazy dog, and then it has a rest.')")
            page.wait_for_timeout(max(0, int(1000 * (began + second + 1 - time.monotonic()))))
            now = run.figures(page)
            rungs[now["rungName"]] += 1
            fps.append(now["fps"])
        seconds = time.monotonic() - began
        after = run.figures(page)
        used = cpu_s(run.server.pid) - used[0], cpu_s(run.server.engine_pid()) - used[1]
    received = (after["framesReceived"] - before["framesReceived"]) / seconds
    run.found["minute"] = {
        "seconds": seconds,
        "fps_received": received,
        "fps_each_second": fps,
        "seconds_by_rung": dict(rungs),
        "freezes_over_500_ms": after["freezes"] - before["freezes"],
        "longest_gap_ms": after["longestGapMs"],
        "cpu_cores": {"media": used[0] / seconds, "engine": used[1] / seconds},
        "last": after,
    }
    run.row("frames received a second", f"{received:.2f}", f"over {seconds:.0f} s, {SETTLING_S:.0f} s after the start")
    run.row("freezes > 500 ms", after["freezes"] - before["freezes"], f"longest gap {after['longestGapMs']} ms")
    run.row("seconds on each rung", dict(rungs))
    run.row("held frames", after["heldFrames"], f"late chunks {after['lateChunks']}")
    run.row("cores used", f"media {used[0] / seconds:.2f}, engine {used[1] / seconds:.2f}")


# -- picture against sound ---------------------------------------------------------------------------------


def measure_av(run: Run, options: argparse.Namespace) -> None:
    length_s = options.minutes * 60 + 45
    path = run.folder / "beeps.wav"
    write_beeps(path, seconds=length_s, every_s=BEEP_EVERY_S)
    with run.page("mic=off") as page:
        start(page)
        probe = Probe(page)
        run.found["probe"] = probe.start()
        page.set_input_files(by_id("file"), path)
        wait_until(page, "avatarStats().speaking")
        began = page.evaluate("performance.now()")
        watch(page, probe, options.minutes * 60 + 15, run)
        early = offsets(probe.readings.since(began + 8_000, began + 14_000))
        late = offsets(probe.readings.since(probe.readings.now_ms - 30_000))
        by_minute = [
            summary([o for _, o in offsets(probe.readings.since(began + 60_000 * m, began + 60_000 * (m + 1)))])
            for m in range(int(options.minutes))
        ]
        run.found |= {"after_10_s": tell(early), "last_30_s": tell(late), "by_minute": by_minute}
        run.row("flash − beep after 10 s, median ms", tell(early)["median"], remark_of(early))
        run.row(f"flash − beep after {options.minutes:g} min", tell(late)["median"], remark_of(late))
        _stall(run, page, probe, options.stall)
        run.found["page"] = run.figures(page)
        run.row("as the browser reckons, ms", run.found["page"]["browserAvOffsetMs"], "estimatedPlayoutTimestamp")
        run.row("as sent, ms", run.found["page"]["serverAvOffsetMs"])
        run.found["output_gap_ms"] = probe.readings.output_gap_ms
        run.row("the browser's output ran dry, ms", f"{probe.readings.output_gap_ms:.0f}", "at most within 10 s")


def _stall(run: Run, page: Any, probe: Probe, seconds: float) -> None:
    """Stops the engine's process for a while, as a machine that swaps would."""
    engine = run.server.engine_pid()
    stopped = page.evaluate("performance.now()")
    os.kill(engine, signal.SIGSTOP)
    try:
        page.wait_for_timeout(int(seconds * 1000))
    finally:
        os.kill(engine, signal.SIGCONT)
    resumed = page.evaluate("performance.now()")
    watch(page, probe, 20, run)
    after = offsets(probe.readings.since(resumed, resumed + 20_000))
    wrong = [beep for beep, offset in after if abs(offset) > IN_SYNC_MS]
    recovered_s = max(0.0, (max(wrong) - resumed) / 1000 + BEEP_EVERY_S) if wrong else 0.0
    later = [(beep, offset) for beep, offset in after if beep > resumed + 5_000]
    run.found["stall"] = {
        "seconds": (resumed - stopped) / 1000,
        "offsets": [[round((beep - resumed) / 1000, 2), round(offset, 1)] for beep, offset in after],
        "in_sync_after_s": recovered_s,
        "beeps_later_than_5_s": tell(later),
    }
    run.row(f"after a stall of {seconds:g} s: in sync after, s", f"{recovered_s:.1f}", f"within {IN_SYNC_MS:g} ms")
    run.row("flash − beep 5 to 20 s after it", tell(later)["median"], remark_of(later))


# -- microphone → frame ------------------------------------------------------------------------------------


def measure_mic(run: Run, options: argparse.Namespace) -> None:
    with run.page("mic=raw") as page:
        start(page)
        page.wait_for_timeout(int(SETTLING_S * 1000))
        probe = Probe(page)
        probe.start()
        buffers, seen = [], []
        for _ in range(int(options.beeps * MIC_EVERY_S / 5) + 1):
            page.wait_for_timeout(5000)
            probe.drain()
            now = run.figures(page)
            buffers.append((now["bufferMs"] or 0) + (now["rttMs"] or 0) / 2)
            seen.append(now)
        found = probe.readings
    to_frame = latencies(found.mic_beeps, found.flashes, MIC_EVERY_S * 1000 - 100)
    to_sound = latencies(found.mic_beeps, found.beeps, MIC_EVERY_S * 1000 - 100)
    stages = seen[-1]["stages"] or {}
    parts = {
        "chunk": stages.get("audio_wait", 480.0),
        "look_ahead": stages.get("look_ahead", 80.0),
        "network_buffer": statistics.median(buffers),
    }
    floor = sum(parts.values())
    frames, sounds = summary(to_frame), summary(to_sound)
    run.found = {
        "to_frame_ms": {"all": to_frame, **frames},
        "to_sound_ms": {"all": to_sound, **sounds},
        "captured": len(found.mic_beeps),
        "floor_ms": {"sum": floor, **parts},
        "stages_ms": stages,
        "page": seen[-1],
    }
    run.row("microphone → frame, median ms", frames["median"], f"{frames['count']} of {len(found.mic_beeps)} beeps")
    run.row("microphone → frame, p95 ms", frames["p95"], f"{frames['min']} … {frames['max']}")
    run.row("microphone → sound, median ms", sounds["median"], f"p95 {sounds['p95']}")
    run.row("floor, ms", f"{floor:.0f}", ", ".join(f"{name} {part:.0f}" for name, part in parts.items()))
    if frames["p95"] is not None:
        run.row("p95 above the floor, ms", f"{frames['p95'] - floor:.0f}", "may be 400")
    run.row("as the page adds up, ms", seen[-1]["latencyMs"])


# -- say and interrupt -------------------------------------------------------------------------------------


def measure_say(run: Run, options: argparse.Namespace) -> None:
    tone = run.folder / "tone.wav"
    write_tone(tone, seconds=30)
    first_sound, sound_still, picture_still, differences = [], [], [], []
    with run.page("mic=off") as page:
        start(page)
        page.evaluate("avatar.addEventListener('interrupted', ({ detail }) => (window.told = detail))")
        page.wait_for_timeout(int(SETTLING_S * 1000))
        probe = Probe(page)
        probe.start()
        for _ in range(options.times):
            asked, sound = _say_once(page, probe)
            first_sound.append(sound - asked)
        for number in range(options.times):
            one = _interrupt_once(page, probe, tone, wait_s=1.3 + 0.37 * number)
            sound_still.append(one["sound_still_ms"])
            differences.append(one["told_ms"] - one["heard_ms"])
            if one["picture_still_ms"] is not None:
                picture_still.append(one["picture_still_ms"])
    run.found = {
        "first_sound_ms": {"all": first_sound, **summary(first_sound)},
        "sound_still_ms": {"all": sound_still, **summary(sound_still)},
        "picture_still_ms": {"all": picture_still, **summary(picture_still)},
        "told_minus_heard_ms": {"all": differences, **summary(differences)},
    }
    run.row("say → first sound, median ms", summary(first_sound)["median"], f"worst {summary(first_sound)['max']}")
    run.row(
        "interrupt → sound still, median ms", summary(sound_still)["median"], f"worst {summary(sound_still)['max']}"
    )
    shown = summary(picture_still)
    run.row("interrupt → picture still, median ms", shown["median"], f"worst {shown['max']} (test pattern only)")
    run.row(
        "played_ms − what the browser played", summary(differences)["median"], f"of {[round(d) for d in differences]}"
    )


def _say_once(page: Any, probe: Probe) -> tuple[float, float]:
    """Page times of the request and of the first sound; then the rest is interrupted and dies away."""
    probe.drain()
    asked = page.evaluate("text => { avatar.say(text); return performance.now() }", SENTENCE)
    sound = _wait_for(page, probe, lambda seen: next((at for at in seen.beeps if at > asked), None))
    page.evaluate("avatar.interrupt()")
    page.wait_for_timeout(3000)
    return asked, sound


def _interrupt_once(page: Any, probe: Probe, tone: Path, wait_s: float) -> dict[str, Any]:
    probe.drain()
    sent = page.evaluate("() => { window.told = null; return performance.now() }")
    page.set_input_files(by_id("file"), tone)
    began = _wait_for(page, probe, lambda seen: next((at for at in seen.beeps if at > sent), None))
    page.wait_for_timeout(int(wait_s * 1000))
    asked = page.evaluate("() => { avatar.interrupt(); return performance.now() }")
    ended = _wait_for(page, probe, lambda seen: next((at for at in seen.beep_ends if at > asked), None))
    wait_until(page, "window.told?.played_ms != null")
    page.wait_for_timeout(2500)
    probe.drain()
    dark = [at for at in probe.readings.flash_ends if at > asked]
    return {
        "sound_still_ms": ended - asked,
        "picture_still_ms": max(dark) - asked if dark else None,
        "heard_ms": ended - began,
        "told_ms": page.evaluate("told.played_ms"),
    }


def _wait_for(page: Any, probe: Probe, find: Callable[[Readings], float | None], longest_s: float = 20.0) -> float:
    for _ in range(int(longest_s * 10)):
        probe.drain()
        found = find(probe.readings)
        if found is not None:
            return found
        page.wait_for_timeout(100)
    raise TimeoutError(f"not heard or seen within {longest_s:g} s; the page says {page.evaluate('avatarStats()')}")


# -- viewers -----------------------------------------------------------------------------------------------


def measure_viewers(run: Run, options: argparse.Namespace) -> None:
    with run.page("mic=off") as page:
        start(page)
        session = run.figures(page)["sessionId"]
        page.wait_for_timeout(int(SETTLING_S * 1000))
        alone = _rates(run, page, [], options.seconds)
        viewers = []
        for _ in range(options.viewers):
            viewer = page.context.new_page()
            viewer.goto(f"{run.server.url}/viewer.html?session={session}&autostart")
            wait_until(viewer, "avatarStats().framesShown > 5")
            viewers.append(viewer)
        page.wait_for_timeout(int(SETTLING_S * 1000))
        watched = _rates(run, page, viewers, options.seconds)
    run.found = {"alone": alone, "watched": watched}
    for key, what in (
        ("chunks_per_s", "chunks made a second"),
        ("frames_encoded_per_s", "frames encoded a second"),
        ("encoded_kbps", "encoded, kb/s"),
        ("received_kbps", "received by all, kb/s"),
        ("media_cores", "cores, media"),
        ("engine_cores", "cores, engine"),
    ):
        shown = [None if rates[key] is None else round(rates[key], 2) for rates in (alone, watched)]
        run.row(what, f"{shown[0]} → {shown[1]}", f"without and with {options.viewers} viewers")
    run.row("frames a viewer received a second", [round(fps, 1) for fps in watched["fps_each"]])


def _rates(run: Run, page: Any, viewers: list[Any], seconds: float) -> dict[str, Any]:
    """What happens a second, over so many of them."""
    engine = run.server.engine_pid()

    def look() -> dict[str, Any]:
        everyone = [run.figures(each) for each in (page, *viewers)]
        metrics = run.server.metrics()
        encoded = [figure for name, figure in metrics.items() if name.startswith("avatar_frames_encoded_total")]
        return {
            "at": time.monotonic(),
            "chunks": sum(figure for name, figure in metrics.items() if name.startswith("avatar_chunks_total")),
            "encoded": sum(encoded) if encoded else None,
            "bitrate": metrics["avatar_bitrate_bps"],
            "media": cpu_s(run.server.pid),
            "engine": cpu_s(engine),
            "everyone": everyone,
        }

    before = look()
    bitrates, received = [], []
    for _ in range(int(seconds)):
        page.wait_for_timeout(1000)
        bitrates.append(run.server.metrics()["avatar_bitrate_bps"] / 1000)
        received.append(sum(run.figures(each)["bitrateKbps"] or 0 for each in (page, *viewers)))
    after = look()
    span = after["at"] - before["at"]

    def rate(key: str) -> float | None:
        return None if before[key] is None else (after[key] - before[key]) / span

    pairs = zip(before["everyone"], after["everyone"], strict=True)
    return {
        "seconds": span,
        "chunks_per_s": rate("chunks"),
        "frames_encoded_per_s": rate("encoded"),
        "encoded_kbps": statistics.mean(bitrates),
        "received_kbps": statistics.mean(received),
        "media_cores": rate("media"),
        "engine_cores": rate("engine"),
        "fps_each": [(late["framesReceived"] - early["framesReceived"]) / span for early, late in pairs],
    }


# -- shared ------------------------------------------------------------------------------------------------


def watch(page: Any, probe: Probe, seconds: float, run: Run) -> None:
    """Drains the probe for so long; a line each minute."""
    end = time.monotonic() + seconds
    reported = 0
    while (left := end - time.monotonic()) > 0:
        page.wait_for_timeout(int(1000 * min(left, 10)))
        probe.drain()
        minute = int((seconds - left) / 60)
        if minute > reported:
            reported = minute
            recent = offsets(probe.readings.since(probe.readings.now_ms - 60_000))
            print(f"minute {minute}: flash − beep {tell(recent)['median']} ms, {remark_of(recent)}", flush=True)


def tell(pairs: Sequence[tuple[float, float]]) -> dict[str, Any]:
    return summary([offset for _, offset in pairs])


def remark_of(pairs: Sequence[tuple[float, float]]) -> str:
    found = tell(pairs)
    return f"{found['count']} beeps, {found['min']} … {found['max']}"
