"""Markdown tables and the same figures as JSON."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

from evaluation.checks import Check, lowest, mean, pooled_closure
from evaluation.measures import ClipScore, LongScore

_MARKS = {True: "✓", False: "✗", None: ""}
_CLIP_COLUMNS: tuple[tuple[str, str, int], ...] = (
    ("name", "clip", 0),
    ("presenter", "presenter", 0),
    ("voice", "voice", 0),
    ("aperture_r", "r", 2),
    ("amplitude", "amplitude", 2),
    ("lag_frames", "lag", 1),
    ("closure", "p/b/m shut", 2),
    ("closure_exact", "(truth)", 2),
    ("closure_elsewhere", "elsewhere", 2),
    ("silence_motion", "pause motion", 2),
    ("silence_share_shut", "pause shut", 2),
    ("face_similarity", "FaceSIM", 3),
    ("face_similarity_true", "(truth)", 3),
    ("sharpness", "gradient", 2),
    ("blockiness", "blocks", 2),
    ("join_jump", "joins", 2),
    ("landmark_r", "instrument r", 3),
)


def number(value: float, digits: int) -> str:
    """A figure as text; a dash where there is none."""
    return "–" if math.isnan(value) else f"{value:.{digits}f}"


def check_table(title: str, checks: list[Check]) -> str:
    """A section with one row a check."""
    rows = [
        f"| {check.name} | {number(check.value, check.digits)} | {check.target} | {_MARKS[check.holds]} |"
        for check in checks
    ]
    return "\n".join([f"## {title}", "", "| figure | value | must be | holds |", "|---|---|---|---|", *rows, ""])


def clip_table(clips: list[ClipScore]) -> str:
    """One row a clip."""
    lines = ["## Clips", "", "| " + " | ".join(title for _, title, _ in _CLIP_COLUMNS) + " |"]
    lines.append("|" + "---|" * len(_CLIP_COLUMNS))
    for clip in clips:
        values = dataclasses.asdict(clip)
        cells = [
            values[name] if isinstance(values[name], str) else number(float(values[name]), digits)
            for name, _, digits in _CLIP_COLUMNS
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join([*lines, ""])


def voice_table(clips: list[ClipScore]) -> str:
    """One row a voice: what training heard of it is up to the data, so each is shown by itself."""
    lines = ["## Voices", "", "| voice | clips | r, mean | r, worst | amplitude | p/b/m shut | lag |", "|" + "---|" * 7]
    for voice in sorted({clip.voice for clip in clips}):
        own = [clip for clip in clips if clip.voice == voice]
        values = (
            mean(clip.aperture_r for clip in own), lowest(clip.aperture_r for clip in own),
            mean(clip.amplitude for clip in own), pooled_closure(own, "closure"), mean(clip.lag_frames for clip in own),
        )
        lines.append(f"| {voice} | {len(own)} | " + " | ".join(number(value, 2) for value in values) + " |")
    return "\n".join([*lines, ""])


def long_table(clips: list[LongScore]) -> str:
    """One row a window of five seconds of every long clip."""
    head = "| presenter | from, s | FaceSIM | ΔE | background | gradient |"
    lines = ["## Long clips over time", "", head, "|" + "---|" * 6]
    for clip in clips:
        for window, delta_e in enumerate(clip.delta_e):
            same = clip.similarity[window] if clip.similarity else float("nan")
            lines.append(
                f"| {clip.presenter} | {5 * window} | {number(same, 3)} | {number(delta_e, 2)}"
                f" | {number(clip.background[window], 2)} | {number(clip.sharpness[window], 2)} |"
            )
    return "\n".join([*lines, ""])


def write_report(
    folder: Path, title: str, facts: dict[str, str], sections: dict[str, list[Check]], clips: list[ClipScore],
    longs: list[LongScore], details: dict[str, Any], pictures: list[Path],
) -> Path:
    """Write `report.md` and `report.json`.

    Args:
        folder: exists.
        title: first line.
        facts: command, weights, machine, …: what a reader needs to see the same figures again.
        sections: checks by the title of their section.
        clips, longs: rows of the tables of clips and of long clips over time.
        details: dataclasses, lists and numbers that go into the JSON alone.
        pictures: contact sheets below `folder`, shown at the end.

    Returns:
        the path of `report.md`.
    """
    failed = [check.name for checks in sections.values() for check in checks if check.holds is False]
    held = sum(check.holds is True for checks in sections.values() for check in checks)
    parts = [f"# {title}", "", *(f"- {name}: {value}" for name, value in facts.items()), ""]
    parts += [f"{held} thresholds hold, {len(failed)} do not" + (f": {'; '.join(failed)}." if failed else "."), ""]
    parts += [check_table(name, checks) for name, checks in sections.items() if checks]
    parts += [voice_table(clips), clip_table(clips)]
    parts += [long_table(longs)] if longs else []
    parts += [f"![{path.stem}]({path.relative_to(folder).as_posix()})" for path in pictures]
    target = folder / "report.md"
    target.write_text("\n".join(parts) + "\n")
    values = {"title": title, "facts": facts, "sections": sections, "clips": clips, "long": longs, "details": details}
    (folder / "report.json").write_text(json.dumps(plain(values), indent=1, allow_nan=False) + "\n")
    return target


def plain(value: Any) -> Any:
    """Dataclasses, arrays and NaN as what JSON knows; NaN becomes null."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return plain(dataclasses.asdict(value))
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
