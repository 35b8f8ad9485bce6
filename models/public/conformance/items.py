"""Which check makes which item again. An item without a check is a failure, as one that cannot be read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from models.public.conformance import audio, autoencoders, denoisers, loops, pictures
from models.public.conformance.fixture import Comparison, Fixture, FixtureError

Check = Callable[[Fixture], None]

CHECKS: dict[str, Check] = {
    "pro_denoiser": denoisers.check_denoiser,
    "lite_denoiser": denoisers.check_denoiser,
    "leaptalk_lora": denoisers.check_leaptalk_lora,
    "loop_pro": loops.check_loop,
    "loop_lite": loops.check_loop,
    "leaptalk_loop": loops.check_leaptalk_loop,
    "end_to_end_pro": loops.check_end_to_end,
    "end_to_end_lite": loops.check_end_to_end,
    "colour_match": pictures.check_colour_match,
    "cover_resize": pictures.check_cover_resize,
    "audio_front_end": audio.check_audio,
    **autoencoders.CHECKS,
}


@dataclass(frozen=True)
class Outcome:
    """What came of an item: its comparisons, or a sentence that says why there are none."""

    item: str
    comparisons: tuple[Comparison, ...]
    problem: str | None = None

    @property
    def is_passed(self) -> bool:
        return self.problem is None and all(comparison.is_passed for comparison in self.comparisons)

    @property
    def lines(self) -> list[str]:
        """A line a limit: item, largest difference, limit, passed; and a line for a problem."""
        groups: dict[tuple[str, float], list[Comparison]] = {}
        for comparison in self.comparisons:
            groups.setdefault((comparison.measure, comparison.limit), []).append(comparison)
        lines = []
        for (measure, limit), members in groups.items():
            worst = max(members, key=lambda comparison: comparison.limits_taken)
            verdict = "passed" if all(member.is_passed for member in members) else "FAILED"
            lines.append(
                f"{self.item:18} {measure:6} {worst.difference:9.2e}  limit {limit:7.1e}  {verdict}"
                f"  {len(members):3} tensors, worst {worst.tensor}"
            )
        if self.problem is not None:
            lines.append(f"{self.item:18} FAILED  {self.problem}")
        return lines


def items_in(folder: Path) -> list[str]:
    """Names of a folder's items, in order: whatever has one of the two files."""
    return sorted({path.stem for suffix in ("json", "safetensors") for path in folder.glob(f"*.{suffix}")})


def check_item(folder: Path, name: str, checks: dict[str, Check] | None = None) -> Outcome:
    """Make one item again and compare."""
    check = (CHECKS if checks is None else checks).get(name)
    if check is None:
        return Outcome(name, (), "is not known: no check makes it again")
    try:
        fixture = Fixture.read(folder, name)
        check(fixture)
    except (FixtureError, KeyError) as error:
        return Outcome(name, (), str(error))
    left_out = fixture.left_out()
    problem = f"{len(left_out)} tensors were not compared, the first {left_out[0]}" if left_out else None
    return Outcome(name, tuple(fixture.comparisons), problem)
