"""GLSL programs of the presenter renderer, put together from the files of this folder."""

from __future__ import annotations

from pathlib import Path

_FOLDER = Path(__file__).parent

# program name: (fragment file, shared files before it, defines)
FRAGMENTS: dict[str, tuple[str, tuple[str, ...], tuple[str, ...]]] = {
    "skin": ("skin.frag", ("light.glsl",), ("SOFT_TERMINATOR",)),
    "cloth": ("cloth.frag", ("light.glsl",), ()),
    "eyes": ("eye.frag", ("light.glsl",), ()),
    "teeth": ("mouth.frag", ("light.glsl",), ("TEETH",)),
    "tongue": ("mouth.frag", ("light.glsl",), ()),
    "card": ("card.frag", ("light.glsl",), ()),
    "hair": ("hair.frag", ("light.glsl", "fringe.glsl"), ()),
    "hair_depth": ("hair_depth.frag", ("fringe.glsl",), ()),
}
EMPTY_FRAGMENT = "#version 330\nvoid main() {}\n"


def read(name: str) -> str:
    """One shader file as text."""
    return (_FOLDER / name).read_text(encoding="utf8")


def fragment(name: str, shadow_size: int) -> str:
    """Fragment program of a part; `shadow_size` is the side of the shadow map in texels."""
    file, shared, defines = FRAGMENTS[name]
    lines = ["#version 330", f"#define SHADOW_STEP {1.3 / shadow_size:.8f}", *(f"#define {d}" for d in defines)]
    return "\n".join([*lines, *(read(part) for part in shared), read(file)])
