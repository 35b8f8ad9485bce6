"""Measure what is found in a portrait, faces, landmarks, layout, on test people that no stage has seen.

    python -m evaluation.portraits --portraits DIR --out FILE.md [--weights FOLDER] [--sheet FILE.png --pictures FOLDER]

DIR is a folder of `python -m training.synthetic.portraits`; only people from seed 900000 on are measured. Lengths are
shares of the eye distance, a face unit at the scale of the true landmarks. The sheet shows what is found in pictures.
"""

from __future__ import annotations

import argparse
import platform
import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch

from models.portrait.crops import Crop
from models.portrait.face_mesh import load_face_mesh
from models.portrait.landmarks import WEIGHTS_FOLDER, Face, FaceFinder, fit_head
from models.portrait.layout import Layout, lay_out, load_layout_network
from training.synthetic.portraits.looks import paint_backdrop
from training.synthetic.portraits.people import TEST_SEED
from training.synthetic.portraits.shards import PortraitSet

_SEEN_SHARE = 0.3  # of the landmarks that make a face one that must be found
_NEAR = 0.5  # mean error, eye distances, below which a face is the one that was looked for
_EMPTY = 200  # pictures without a face
_TURNED_RAD = np.radians(20)


@dataclass(frozen=True)
class FaceScore:
    """Errors of one face, eye distances; angle in degrees. Landmarks that are hidden do not count."""

    all: float
    lids: float
    lips: float
    irises: float
    depth: float
    angle_deg: float
    yaw: float


@dataclass(frozen=True)
class LayoutScore:
    """Of one picture where the person is: shares' errors, depths' errors in eye distances; overlap of the mattes."""

    matte_iou: float
    head: float
    clavicle: float
    front: float
    back: float


def score_face(face: Face, landmarks: np.ndarray, irises: np.ndarray, seen: np.ndarray) -> FaceScore:
    """A found face against true landmarks [L, 3], irises [2, 3] and which landmarks can be seen [L]."""
    rotation, scale = fit_head(landmarks)
    error = np.linalg.norm(face.landmarks[:, :2] - landmarks[:, :2], axis=1) / scale
    loops = load_face_mesh().loops

    def edge(prefix: str) -> float:
        vertices = np.unique(np.concatenate([loop for name, loop in loops.items() if name.startswith(prefix)]))
        vertices = vertices[seen[vertices]]
        return float(error[vertices].mean()) if len(vertices) else float("nan")

    between = face.rotation.T @ rotation
    return FaceScore(
        all=float(error[seen].mean()),
        lids=edge("lid"),
        lips=edge("lip"),
        irises=float(np.linalg.norm((face.irises - irises)[:, :2], axis=1).mean() / scale),
        depth=float(np.abs(face.landmarks[seen, 2] - landmarks[seen, 2]).mean() / scale),
        angle_deg=float(np.degrees(np.arccos(np.clip((np.trace(between) - 1) / 2, -1, 1)))),
        yaw=float(np.arctan2(rotation[0, 2], rotation[2, 2])),
    )


def score_layout(layout: Layout, fields: tuple[np.ndarray, ...], size: int, unit: float, scale: float) -> LayoutScore:
    """A layout against labels (front, back, shares) of a picture of that size. unit: pixels of a label's depth of 1;
    scale: pixels of the eye distance that errors are given in."""
    front, back, shares = fields
    count = layout.front.shape[0]
    cell = (np.arange(count) + 0.5) / count - 0.5
    middle = layout.side / 2
    crop = Crop(layout.left + middle, layout.top + middle, layout.side)
    at = crop.to_picture(np.stack(np.meshgrid(cell, cell), axis=-1)) * (front.shape[0] / size)
    row, column = np.floor(at[..., 1]).astype(int), np.floor(at[..., 0]).astype(int)
    inside = (row >= 0) & (column >= 0) & (row < front.shape[0]) & (column < front.shape[0])
    row, column = row.clip(0, front.shape[0] - 1), column.clip(0, front.shape[0] - 1)
    true = shares[row, column].astype(np.float32) / 255
    person, guess = inside & (true[..., 2] > 0.5), inside & (layout.matte > 0.5)
    depth = (layout.front - front[row, column].astype(np.float32) * unit)[person] / scale
    behind = (layout.back - back[row, column].astype(np.float32) * unit)[person] / scale
    return LayoutScore(
        matte_iou=float((person & guess).sum() / max((person | guess).sum(), 1)),
        head=float(np.abs(layout.head - true[..., 0])[person].mean()),
        clavicle=float(np.abs(layout.clavicle - true[..., 1])[person].mean()),
        front=float(np.abs(depth - np.median(depth)).mean()),
        back=float(np.abs(behind - np.median(depth)).mean()),
    )


@dataclass
class Findings:
    faces: list[FaceScore]
    layouts: list[LayoutScore]
    looked_for: int
    people: int
    extra: int
    false_faces: int
    find_s: list[float]
    layout_s: list[float]


def measure(portraits: PortraitSet, weights: Path) -> Findings:
    """Every picture of the test people, and pictures without a face.

    Raises:
        ValueError: if the folder has no test people.
    """
    rows = np.nonzero(portraits.seeds >= TEST_SEED)[0]
    if not len(rows):
        raise ValueError(f"no people from seed {TEST_SEED} on among the portraits")
    finder = FaceFinder.load(weights)
    network = load_layout_network(weights) if (weights / "layout.safetensors").is_file() else None
    found = Findings([], [], 0, len(np.unique(portraits.seeds[rows])), 0, 0, [], [])
    names = ("pictures", "landmarks", "irises", "seen", "front", "back", "shares")
    for picture, landmarks, irises, seen, *labels in portraits.rows(rows, *names):
        start = time.perf_counter()
        faces = finder.find(picture)
        found.find_s.append(time.perf_counter() - start)
        scores = [score_face(face, landmarks, irises, seen) for face in faces] if seen.any() else []
        near = [k for k, score in enumerate(scores) if score.all < _NEAR]
        found.extra += len(faces) - len(near[:1])
        if seen.mean() < _SEEN_SHARE:
            continue
        found.looked_for += 1
        if near:
            found.faces.append(scores[near[0]])
            if network is not None:
                scale, unit = fit_head(landmarks)[1], float(np.linalg.norm(irises[0] - irises[1]))
                start = time.perf_counter()
                layout = lay_out(picture, faces[near[0]], network)
                found.layout_s.append(time.perf_counter() - start)
                found.layouts.append(score_layout(layout, tuple(labels), picture.shape[0], unit, scale))
    found.false_faces = sum(bool(finder.find(paint_backdrop(10_000 + k, 256))) for k in range(_EMPTY))
    return found


def report(found: Findings, command: str) -> str:
    """The figures as Markdown."""

    def mean(name: str, scores: Sequence[FaceScore | LayoutScore]) -> str:
        return f"{np.nanmean([getattr(score, name) for score in scores]):.3f}" if scores else "–"

    ahead = [score for score in found.faces if abs(score.yaw) < _TURNED_RAD]
    aside = [score for score in found.faces if abs(score.yaw) >= _TURNED_RAD]
    worst = np.percentile([score.all for score in found.faces], 95)
    median = np.median([score.all for score in found.faces])
    names = {"all": "all landmarks", "lids": "lids", "lips": "lips", "irises": "irises", "depth": "depth"}
    names["angle_deg"] = "head's turn, degrees"
    lines = [
        "# What is found in a portrait",
        "",
        f"`{command}`: {found.people} people and {found.looked_for} pictures that no stage has seen, "
        f"{platform.machine()}, {torch.get_num_threads()} thread(s).",
        "",
        "| errors, shares of the eye distance | mean | facing (yaw < 20°) | turned |",
        "|---|---|---|---|",
        *(
            f"| {title} | " + " | ".join(mean(name, scores) for scores in (found.faces, ahead, aside)) + " |"
            for name, title in names.items()
        ),
        "",
        f"All landmarks, median / 95 % of the pictures: {median:.3f} / {worst:.3f}. "
        f"Faces found: {len(found.faces)} of {found.looked_for}; found where there is none: {found.extra} in these "
        f"pictures, {found.false_faces} in {_EMPTY} backdrops without a person. "
        f"Finding takes {np.median(found.find_s):.2f} s a picture of 256².",
        "",
    ]
    if found.layouts:
        lines += [
            "| layout, where the person is | mean |",
            "|---|---|",
            f"| overlap of the mattes (IoU) | {mean('matte_iou', found.layouts)} |",
            f"| head share, error | {mean('head', found.layouts)} |",
            f"| clavicle share, error | {mean('clavicle', found.layouts)} |",
            f"| front depth, eye distances, offset taken out | {mean('front', found.layouts)} |",
            f"| back depth, the same | {mean('back', found.layouts)} |",
            "",
            f"The layout takes {np.median(found.layout_s):.2f} s.",
            "",
        ]
    return "\n".join(lines)


def draw_sheet(pictures: Sequence[Path], weights: Path, side: int = 512) -> np.ndarray:
    """Pictures with the loops of their largest face, and the layout beside them, uint8 [rows · side, 3 · side, 3]."""
    finder = FaceFinder.load(weights)
    network = load_layout_network(weights) if (weights / "layout.safetensors").is_file() else None
    rows = []
    for path in pictures:
        picture = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)
        scale = side / max(picture.shape[:2])
        picture = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        picture = cv2.copyMakeBorder(
            picture, 0, side - picture.shape[0], 0, side - picture.shape[1], cv2.BORDER_CONSTANT
        )
        drawn, maps = picture.copy(), np.zeros((side, side, 3), np.uint8)
        faces = finder.find(picture)
        for face in faces:
            draw_face(drawn, face)
        if faces and network is not None:
            maps = _layout_picture(lay_out(picture, faces[0], network), faces[0].scale, side)
        rows.append(np.hstack([picture, drawn, maps]))
    return np.vstack(rows)


def draw_face(picture: np.ndarray, face: Face) -> None:
    """Draw the loops and irises of a face into a picture."""
    colours = {"lip": (255, 60, 60), "lid": (60, 255, 60), "brow": (255, 220, 0), "nose": (0, 220, 255)}
    for name, loop in load_face_mesh().loops.items():
        points = np.round(face.landmarks[loop, :2] * 8).astype(np.int32)
        colour = colours.get(name.split("_")[0], (80, 120, 255))
        cv2.polylines(picture, [points], name == "outline", colour, 1, cv2.LINE_AA, 3)
    for iris in face.irises:
        cv2.circle(picture, (int(iris[0]), int(iris[1])), 2, (255, 0, 255), -1)


def _layout_picture(layout: Layout, scale: float, side: int) -> np.ndarray:
    """Front depth, back depth, shares and matte of a layout as four tiles."""

    def tile(values: np.ndarray) -> np.ndarray:
        return cv2.resize(np.clip(values, 0, 255).astype(np.uint8), (side // 2, side // 2))

    matte = layout.matte
    tiles = [tile((layout.front / scale * 40 + 160) * matte), tile((layout.back / scale * 40 + 200) * matte)]
    shares = [layout.head * 255 * matte, layout.clavicle * 255 * matte, matte * 255]
    grey = np.vstack([np.hstack(tiles), np.hstack([tile(matte * 255), tile(matte * 255)])])
    out = np.dstack([grey] * 3)
    out[side // 2 :, : side // 2] = np.dstack([tile(share) for share in shares])
    return out


def main() -> None:
    """Entry of `python -m evaluation.portraits`."""
    parser = argparse.ArgumentParser(prog="python -m evaluation.portraits", description=__doc__.split("\n")[0])
    parser.add_argument("--portraits", type=Path, help="folder of the shards, test people among them")
    parser.add_argument("--out", type=Path, help="Markdown file of the figures")
    parser.add_argument("--weights", type=Path, default=WEIGHTS_FOLDER)
    parser.add_argument("--pictures", type=Path, help="folder of pictures for the sheet")
    parser.add_argument("--sheet", type=Path, help="picture file of what is found in them")
    arguments = parser.parse_args()
    if bool(arguments.portraits) != bool(arguments.out) or bool(arguments.pictures) != bool(arguments.sheet):
        parser.error("--portraits goes with --out, --pictures with --sheet")
    torch.set_num_threads(1)
    if arguments.portraits:
        found = measure(PortraitSet(arguments.portraits), arguments.weights)
        text = report(found, shlex.join(["python", "-m", "evaluation.portraits", *sys.argv[1:]]))
        arguments.out.write_text(text)
        print(text)
    if arguments.sheet:
        pictures = sorted(path for path in arguments.pictures.iterdir() if path.suffix in (".png", ".jpg"))
        sheet = draw_sheet(pictures, arguments.weights)
        cv2.imwrite(str(arguments.sheet), cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR))


if __name__ == "__main__":
    main()
