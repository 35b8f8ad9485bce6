"""Portraits that nobody drew: a canonical face turned at random over noise, with a flat layout."""

from __future__ import annotations

import numpy as np

from models.portrait.face_mesh import load_face_mesh
from training.synthetic.portraits.labels import LayoutLabels
from training.synthetic.portraits.sitter import Portrait


def toy_portraits(count: int, size: int = 64) -> list[Portrait]:
    rng, canonical = np.random.default_rng(0), load_face_mesh().canonical
    portraits = []
    for _ in range(count):
        yaw = rng.uniform(-0.4, 0.4)
        turn = np.array([[np.cos(yaw), 0, np.sin(yaw)], [0, 1, 0], [-np.sin(yaw), 0, np.cos(yaw)]])
        middle = np.array([size / 2 + rng.uniform(-4, 4), size * 0.4, 0])
        landmarks = (canonical @ turn.T * 0.18 * size + middle).astype(np.float32)
        irises = (np.array([[0.5, 0, 0.2], [-0.5, 0, 0.2]]) @ turn.T * 0.18 * size + middle).astype(np.float32)
        cells = (size // 2, size // 2)
        maps = [rng.random(cells, np.float32) for _ in range(5)]
        maps[4] = np.round(maps[4])
        layout = LayoutLabels(*maps, rng.integers(0, 5, cells).astype(np.uint8))
        picture = rng.integers(0, 256, (size, size, 3)).astype(np.uint8)
        portraits.append(Portrait(picture, landmarks, rng.random(len(canonical)) < 0.9, irises, layout))
    return portraits
