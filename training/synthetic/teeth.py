"""The teeth that are drawn into a portrait's mouth, cut out of a synthetic mouth that is held open.

    python -m training.synthetic.teeth --assets MAKEHUMAN

writes `models/portrait/assets/teeth.safetensors` again.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np
from safetensors.numpy import save_file

from models.portrait.mouth import TEETH_FILE
from training.synthetic.identity import GALLERY
from training.synthetic.keypoints import INNER_LOWER, INNER_UPPER
from training.synthetic.presenter import Presenter
from training.synthetic.renderer import Renderer, Surface
from training.synthetic.rig import FramePose
from training.synthetic.visemes import face_vector

_SIDE = 1024  # pixels of the render
_CHIN, _CORNERS = 8, (48, 54)
_CHEEKS = ((-150, -40), (150, -40))  # pixels from the lips' middle
_OPEN = {"mouthUpperUp": 1.0, "mouthLowerDown": 1.0, "mouthStretch": 0.8, "jawOpen": 0.65}
_GREEN = (0, 255, 0, 255)


def make_teeth(assets: Path) -> dict[str, np.ndarray]:
    """Arrays of the file; see `models.portrait.mouth.Teeth`."""
    renderer = Renderer(size=_SIDE)
    presenter = Presenter(renderer, GALLERY["maya"], assets)
    open_pose = FramePose(face=face_vector(**_OPEN).astype(np.float32))
    picture, points = presenter.render(open_pose, "head")
    _, rest = presenter.render(FramePose(), "head")
    presenter.release()
    painted = presenter._painted()
    green = renderer.texture(np.full((4, 4, 4), _GREEN, np.uint8))
    painted["teeth"] = [Surface(green, surface.normal) for surface in painted["teeth"]]
    marked, _ = presenter.render(open_pose, "head")
    presenter.release()
    renderer.release()
    change = np.abs(marked.astype(np.float32) - picture).max(2)
    alpha = cv2.GaussianBlur((change / 60).clip(0, 1), (0, 0), 1.0)
    points, rest = points[:, :2] * _SIDE, rest[:, :2] * _SIDE
    upper_edge, lower_edge = points[INNER_UPPER].mean(0), points[INNER_LOWER].mean(0)
    anchor = rest[INNER_UPPER].mean(0)
    lip_width = float(np.linalg.norm(rest[_CORNERS[1]] - rest[_CORNERS[0]]))
    cheeks = [np.round(upper_edge + offset).astype(int) for offset in _CHEEKS]
    arrays: dict[str, np.ndarray] = {
        "lip_width": np.array([lip_width], np.float32),
        "skin": np.mean([picture[y - 6 : y + 7, x - 6 : x + 7] for x, y in cheeks], axis=(0, 1, 2)).astype(np.float32),
    }
    middle = int(round((upper_edge[1] + lower_edge[1]) / 2))
    for name, rows, at in (
        ("upper", slice(0, middle), anchor),
        ("lower", slice(middle, _SIDE), anchor + points[_CHIN] - rest[_CHIN]),
    ):
        own = np.zeros_like(alpha)
        own[rows] = alpha[rows]
        own *= _front(own, upper_edge[0], lip_width, is_upper=name == "upper")
        y, x = np.nonzero(own > 0.02)
        cut = np.s_[y.min() - 2 : y.max() + 3, x.min() - 2 : x.max() + 3]
        colour = np.dstack([picture[cut], np.round(255 * own[cut])]).astype(np.uint8)
        arrays[name] = colour
        arrays[f"{name}_anchor"] = (at - (x.min() - 2, y.min() - 2)).astype(np.float32)
    return arrays


def _front(cover: np.ndarray, middle: float, lip_width: float, is_upper: bool) -> np.ndarray:
    """What is kept [S, S] of a row: no molars, which hang beside the front teeth and are grey there."""
    columns = np.abs(np.arange(_SIDE) - middle) / lip_width
    rows = np.flatnonzero((cover[:, columns < 0.12] > 0.5).any(1))
    beyond = np.arange(_SIDE) - rows[-1] if is_upper else rows[0] - np.arange(_SIDE)
    keeps_row = 1 - (beyond / 4 + 0.5).clip(0, 1)
    keeps_column = ((0.47 - columns) / 0.08).clip(0, 1)
    return keeps_row[:, None] * keeps_column


def main() -> None:
    """Entry of `python -m training.synthetic.teeth`."""
    parser = argparse.ArgumentParser(description="The teeth of models.portrait, cut from a synthetic mouth again.")
    parser.add_argument("--assets", type=Path, required=True, help="folder of the CC0 MakeHuman assets")
    parser.add_argument("--target", type=Path, default=TEETH_FILE)
    arguments = parser.parse_args()
    arrays = make_teeth(arguments.assets)
    save_file(arrays, arguments.target)
    print(f"{arguments.target}: " + ", ".join(f"{name} {list(array.shape)}" for name, array in arrays.items()))


if __name__ == "__main__":
    main()
