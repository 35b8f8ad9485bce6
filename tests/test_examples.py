"""Every example of the README and the docs runs, or at least parses."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from models.checkpoints import shipped_weights
from streamer.cli import build_parser

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), flags=re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_of_the_page_parse(page: Path) -> None:
    for block in blocks(page, "sh"):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words[:1] == ["infinity-avatar"]:
                assert build_parser().parse_args(words[1:]).command


@pytest.mark.skipif(not (shipped_weights("portrait") / "config.json").is_file(), reason="no weights shipped")
def test_python_of_the_readme_runs() -> None:
    examples = blocks(ROOT / "README.md", "python")
    assert examples
    for example in examples:
        names: dict = {}
        exec(compile(example, "README.md", "exec"), names)
        assert names["frames"].shape == (12, 512, 512, 3)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_to_files_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text())
    missing = [target for target in targets if not (page.parent / target).exists()]
    assert not missing, missing
