"""What README, model card and documents say was measured, read against the committed results."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
TRUE_FACESIM = "FaceSIM of true renders', mean"
CARD = ROOT / "models" / "weights" / "presenter-256" / "MODEL_CARD.md"


def result(name: str) -> Any:
    return json.loads((RESULTS / f"{name}.json").read_text())


def table_rows(text: str) -> dict[str, list[str]]:
    """Cells of every row of every table, by the first cell."""
    rows = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in text.splitlines() if line[:2] == "| "]
    return {cells[0].strip(): [cell.strip() for cell in cells[1:]] for cells in rows}


def evaluated() -> dict[str, float]:
    """Figures of the evaluation's report by name."""
    rows = table_rows((ROOT / "docs" / "results" / "presenter-256.md").read_text())
    return {name: float(cells[0]) for name, cells in rows.items() if re.fullmatch(r"[\d.]+", cells[0])}


def readme_table() -> dict[str, str]:
    """What README's table has to say."""
    start, say, mic = result("live_start"), result("live_say"), result("live_mic_avatar")
    av, network, soak, cpu = result("live_av"), result("live_network"), result("live_soak"), result("cpu_2_threads")
    figures = evaluated()
    chunks = {
        rung: count for rung, count in soak["minutes"][-1]["metrics"].items() if rung.startswith("avatar_chunks_total")
    }
    full_share = chunks['avatar_chunks_total{rung="full"}'] / sum(chunks.values())
    mic_by_minute = [minute["mic_to_sound"]["median"] for minute in soak["minutes"]]
    frames = 4 * cpu["n"]
    to_sound, halves = mic["to_sound_ms"], [f"{half['median']:.0f}" for half in network["mic_to_frame_ms_by_half"]]
    still, told = say["sound_still_ms"], say["told_minus_heard_ms"]["max"]
    return {
        "click → first frame, median": f"{start['first_frame_ms']['median'] / 1e3:.2f} s",
        "frames received a second, 60 s": f"{start['minute']['fps_received']:.1f}, all of them at full quality; "
        "no freeze",
        "text → first sound, median / worst": f"{say['first_sound_ms']['median'] / 1e3:.2f} / "
        f"{say['first_sound_ms']['max'] / 1e3:.2f} s",
        "interrupt → silence, median / worst": f"{still['median']:.0f} / {still['max']:.0f} ms; "
        f"reported milliseconds within {told:.0f} ms of the browser's",
        "microphone → avatar's sound, median / p95": f"{to_sound['median'] / 1e3:.2f} / {to_sound['p95'] / 1e3:.2f} s, "
        f"{mic['floor_ms']['sum'] / 1e3:.2f} s of it chunk, look-ahead, network buffer",
        "picture against sound, after 10 s / 10 min (test pattern, 480 ms chunks)": ""
        f"{av['after_10_s']['median']:.0f} / −{-av['last_30_s']['median']:.0f} ms",
        "5 % loss each way, 100 ms round trip, 5 min (test pattern, 480 ms chunks)": ""
        f"25.0 frames a second; microphone → picture {' → '.join(halves)} ms by half",
        "30 min of one session, then 100 connections": f"memory +{soak['media_mb_growth_percent']:.1f} % (media), "
        f"+{soak['engine_mb_growth_percent']:.1f} % (engine); microphone → sound {mic_by_minute[0]:.0f} → "
        f"{mic_by_minute[-1]:.0f} ms; {100 * full_share:.1f} % of chunks at full quality; no freeze; "
        "nothing left behind",
        "compute for a second of video": f"{cpu['pipelines']['served']['rtf']:.2f} s on two threads; "
        f"{sum(cpu['flop'].values()) / frames / 1e9:.2f} GFLOP a frame",
        "lips follow unheard speech (aperture r, 12 clips)": f"{figures['aperture r, mean']:.2f}, with shuffled sound "
        f"{figures['shuffled sound: size of the mean r']:.2f}; {100 * figures['p/b/m shut']:.0f} % of p, b, m shut",
        "identity, of what true renders get": f"{figures[TRUE_FACESIM]:.2f}; drop over 60 s of one clip "
        f"{100 * figures['FaceSIM drop from second 10 to the end']:.1f} %",
    }


def test_readme_says_what_was_measured_and_nothing_else() -> None:
    text = (ROOT / "README.md").read_text()
    table = text[text.index("| measured |") : text.index("Not measured yet")]
    said = {name: cells[0] for name, cells in table_rows(table).items() if name not in ("measured", "---")}
    assert said == readme_table()


def test_readme_says_how_portraits_follow_and_what_they_cost() -> None:
    rows = table_rows((ROOT / "docs" / "results" / "portrait-expression.md").read_text())
    r, shut = float(rows["as it is"][1]), float(rows["as it is"][5])
    words = " ".join((ROOT / "README.md").read_text().split())
    assert f"the mouth follows with r = {r:.2f} and is shut on {100 * shut:.0f} % of p, b and m" in words
    small, large = (result(f"portrait_{size}")["rtf"] for size in ("512", "720x1280"))
    assert f"takes one core {small:.2f} s, at 720×1280 {large:.2f} s" in words
    live = result("live_start_portrait")
    click_s, minute = live["first_frame_ms"]["median"] / 1e3, live["minute"]
    assert minute["freezes_over_500_ms"] == 0
    heard_s = result("live_mic_portrait")["to_sound_ms"]["median"] / 1e3
    assert f"is heard from it after {heard_s:.2f} s" in words
    assert f"{click_s:.2f} s after the click and comes at {minute['fps_received']:.1f} frames a second" in words


def test_what_readme_says_in_words_holds() -> None:
    minute, soak = result("live_start")["minute"], result("live_soak")
    assert minute["seconds_by_rung"].keys() == {"full"} and minute["freezes_over_500_ms"] == 0
    assert all(part["page"]["freezes"] == 0 for part in soak["minutes"]) and len(soak["minutes"]) == 30
    before, after = soak["cycles"]["before"], soak["cycles"]["after"]
    assert soak["cycles"]["count"] == 100 and soak["cycles"]["sessions"] == 0
    assert all(after[part][kind] <= before[part][kind] for part in before for kind in before[part])
    for name in ("live_av", "live_network"):
        run = result(name)
        assert run["options"]["pipeline"] == "test-pattern"
        page = run["page"] if "page" in run else run["spans"][0]["page"]
        assert page["stages"]["audio_wait"] == 480
    for name in ("live_start", "live_say", "live_mic_avatar", "live_soak"):
        assert result(name)["options"]["pipeline"] == "avatar"
    spans = [span["fps"] for span in result("live_network")["spans"]]
    assert f"{sum(spans) / len(spans):.1f}" == "25.0" and min(spans) > 24.5
    machines = [result(path.stem)["machine"] for path in RESULTS.glob("live_*.json")]
    assert {(machine["processor"], machine["cores"]) for machine in machines} == {("AMD EPYC", 2)}


@pytest.mark.parametrize(
    ("row", "names", "form"),
    [
        ("lip aperture r, mean / worst clip", ["aperture r, mean", "aperture r, worst clip"], "{:.2f} / {:.2f}"),
        ("with shuffled sound", ["shuffled sound: size of the mean r"], "{:.2f}"),
        ("amplitude of the truth", ["amplitude of the truth, mean"], "{:.2f}"),
        ("lag, frames", ["lag of the picture, frames, size of the mean"], "{:.2f}"),
        ("closed on p, b, m", ["p/b/m shut"], "{:.2f}"),
        ("mouth motion in silence, worst presenter, of speaking", ["mouth motion of speaking, worst"], "{:.2f}"),
        ("frames shut in silence, worst presenter", ["share of frames shut, worst"], "{:.2f}"),
        ("blinks seen of blinks planned, in silence", ["blinks seen of blinks planned"], "{:.2f}"),
        ("FaceSIM, of what true renders get", ["FaceSIM of true renders', mean"], "{:.2f}"),
        (
            "drop of FaceSIM over 60 s / colour change ΔE, one clip",
            ["FaceSIM drop from second 10 to the end %", "colour change ΔE, worst 5 s"],
            "{:.1f} % / {:.1f}",
        ),
        ("gradient energy of the truth's", ["gradient energy of the truth's"], "{:.2f}"),
        ("VAE PSNR", ["VAE PSNR, dB"], "{:.1f} dB"),
        (
            "refiner from true LR latents and keypoints",
            ["refiner PSNR, dB", "refiner gradient energy of the truth's"],
            "{:.1f} dB, sharpness {:.2f}",
        ),
        (
            "enlarged LR beside it",
            ["enlarged LR PSNR, dB", "enlarged LR gradient energy of the truth's"],
            "{:.1f} dB, sharpness {:.2f}",
        ),
    ],
)
def test_model_card_says_what_was_evaluated(row: str, names: list[str], form: str) -> None:
    figures = evaluated()
    values = [100 * figures[name[:-2]] if name.endswith(" %") else figures[name] for name in names]
    assert table_rows(CARD.read_text())[row][0] == form.format(*values)


def test_model_card_counts_operations_as_the_benchmark_does() -> None:
    cpu = result("cpu_2_threads")
    gflop = sum(cpu["flop"].values()) / (4 * cpu["n"]) / 1e9
    assert table_rows(CARD.read_text())["operations a frame"][0] == f"{gflop:.2f} GFLOP"


def test_kernels_page_says_what_the_processor_did() -> None:
    cpu, text = result("cpu_2_threads"), " ".join((ROOT / "docs" / "kernels.md").read_text().split())
    half, single = cpu["gflop_per_s"]["torch.bfloat16"], cpu["gflop_per_s"]["torch.float32"]
    assert (
        f"Products run at {half['product']:.0f} GFLOP/s in bf16 and {single['product']:.0f} in fp32, convolutions at "
        f"{half['convolution']:.0f} and {single['convolution']:.0f}; bf16 frames are at "
        f"{cpu['pipelines']['served']['psnr_db']:.1f} dB against fp32. It is {cpu['speedup']:.2f} times as fast"
    ) in text
    busy = {row["setting"]: row["rtf"][-1] for row in result("busy")["rows"]}
    assert f"a real-time factor of {busy['own']:.2f} so and of {busy['spinning']:.2f} as libgomp is" in text


def test_links_of_the_documents_lead_somewhere() -> None:
    dead = []
    for page in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]:
        for link in re.findall(r"\]\(([^)#\s]+)", page.read_text()):
            if "://" not in link and not (page.parent / link).exists():
                dead.append(f"{page.relative_to(ROOT)}: {link}")
    assert not dead, "\n".join(dead)
