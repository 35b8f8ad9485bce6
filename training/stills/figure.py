"""What is to be seen of a presenter, in one file for `draw.py`: posed surfaces, their pictures, hair, eyes.

python -m training.stills.figure --assets ASSETS --out FOLDER NAME [NAME …]
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import yaml

from training.stills.strands import Cards, is_above_fringe, strands
from training.synthetic.identity import GALLERY, Identity
from training.synthetic.presenter import Presenter
from training.synthetic.renderer import Renderer
from training.synthetic.rig import FramePose
from training.synthetic.wardrobe import FRINGE_M, dressed_pictures

SCENES = Path(__file__).parent / "scenes.yaml"
STRANDS, STRAND_POINTS = 30_000, 14


def figure_arrays(presenter: Presenter, assets: Path) -> dict[str, np.ndarray]:
    """A presenter at rest, looking at the viewer.

    Returns:
        of part i `vertices.i` [V, 3] metres, `triangles.i` [T, 3], `uv.i` [T, 3, 2], `albedo.i` uint8 [H, W, 3 or 4],
        and where there is one `normal.i`; `kinds`; `strands` float32 [S, K, 3]; `eye_centres` [2, 3], `eye_radius` [2],
        `eye_turns` [2, 3, 3].
    """
    identity = presenter.identity
    shot, rotations, _, vertices = presenter.posed(FramePose(), "upper")
    pictures = {kind: list(items) for kind, items in dressed_pictures(presenter.body, identity, assets).items()}
    fringe_m = FRINGE_M.get(identity.hair or "", 0.0)
    arrays: dict[str, np.ndarray] = {"kinds": np.array([part.kind for part in shot.figure.parts])}
    for number, part in enumerate(shot.figure.parts):
        rows = slice(part.start, part.start + part.count)
        albedo, normal = pictures[part.kind].pop(0)
        triangles, uv = part.position[part.triangles], part.uv[part.triangles]
        if part.kind == "hair":
            canonical = shot.figure.canonical[rows]
            cards = Cards(vertices[rows], canonical, triangles, uv, albedo[..., 3] / 255)
            arrays["strands"] = strands(cards, STRANDS, STRAND_POINTS, fringe_m, identity.seed)
            kept = is_above_fringe(canonical[triangles].mean(axis=1), fringe_m)
            triangles, uv = triangles[kept], uv[kept]
        arrays |= {f"vertices.{number}": vertices[rows], f"triangles.{number}": triangles, f"uv.{number}": uv}
        arrays[f"albedo.{number}"] = albedo
        if normal is not None:
            arrays[f"normal.{number}"] = normal
    eyes = [vertices[rows] for rows in shot.eyes]
    index = presenter.skeleton.index
    arrays["eye_centres"] = np.stack([eye.mean(axis=0) for eye in eyes])
    arrays["eye_radius"] = np.array([np.linalg.norm(eye - eye.mean(axis=0), axis=1).max() for eye in eyes])
    arrays["eye_turns"] = rotations[[index["eye.L"], index["eye.R"]]]
    return arrays


def scene_of(identity: Identity) -> dict[str, object]:
    """How a presenter is lit and what is behind: `scenes.yaml`, and the colour of the hair."""
    scenes = yaml.safe_load(SCENES.read_text())
    return {**scenes["default"], "hair_colour": list(identity.hair_colour), **scenes[identity.name]}


def main() -> None:
    parser = argparse.ArgumentParser(description="Write figures for training/stills/draw.py.")
    parser.add_argument("names", nargs="+", choices=sorted(GALLERY), metavar="NAME")
    parser.add_argument("--assets", type=Path, required=True, help="folder of the CC0 MakeHuman assets")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    renderer = Renderer(size=256)
    for name in arguments.names:
        presenter = Presenter(renderer, GALLERY[name], arguments.assets)
        np.savez(arguments.out / f"{name}.npz", **figure_arrays(presenter, arguments.assets))  # type: ignore[arg-type]
        (arguments.out / f"{name}.json").write_text(json.dumps(scene_of(GALLERY[name]), indent=1) + "\n")
        presenter.release()
        print(f"{name}: written")


if __name__ == "__main__":
    main()
