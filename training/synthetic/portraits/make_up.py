"""Paint on skin and clothes: make-up, wrinkles, smooth cartoon skin, brush strokes; stripes and checks."""

from __future__ import annotations

import cv2
import numpy as np

from training.synthetic.body import BodyModel


def make_up(body: BodyModel, skin: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Skin texture uint8 [S, S, 4] with what a person may have on it; often as it was."""
    size = skin.shape[0]
    rgb: np.ndarray = skin[..., :3].astype(np.float32)

    def mask(name: str, blur: float) -> np.ndarray:
        full = cv2.resize(body.masks[name], (size, size), interpolation=cv2.INTER_AREA).astype(np.float32) / 255
        return cv2.GaussianBlur(full, (0, 0), blur)[..., None]

    kind = rng.random()
    if kind < 0.15:  # drawn and smooth skins
        rgb = cv2.bilateralFilter(rgb, 0, 40, 5) if kind < 0.07 else cv2.GaussianBlur(rgb, (0, 0), 8)
    elif kind < 0.45:  # wrinkles, pores
        rgb = rgb + rng.uniform(0.3, 1.8) * (rgb - cv2.GaussianBlur(rgb, (0, 0), float(rng.uniform(2, 6))))
    if rng.random() < 0.25:
        shadow = mask("eyelids", float(rng.uniform(2, 9))) * rng.uniform(0.2, 0.9)
        rgb = rgb * (1 - shadow) + shadow * rng.uniform(10, 190) * np.exp(rng.normal(0, 0.3, 3))
    if rng.random() < 0.25:
        lips = mask("lips", 1.0) * rng.uniform(0.3, 0.9)
        rgb = rgb * (1 - lips) + lips * np.array([rng.uniform(70, 230), rng.uniform(10, 120), rng.uniform(20, 130)])
    if rng.random() < 0.15:  # brush strokes
        count = int(rng.integers(20, 120))
        strokes = cv2.resize(rng.normal(0, 1, (count, count, 3)).astype(np.float32), (size, size))
        rgb = rgb * np.exp(strokes * rng.uniform(0.03, 0.15))
    return np.dstack([np.clip(rgb, 0, 255), skin[..., 3:]]).astype(np.uint8)


def add_pattern(cloth: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Cloth texture uint8 [S, S, 4], sometimes with stripes, checks or blotches."""
    kind = rng.random()
    if kind > 0.35:
        return cloth
    y, x = np.mgrid[0 : cloth.shape[0], 0 : cloth.shape[1]] / cloth.shape[0]
    count = rng.integers(8, 60)
    if kind < 0.2:
        turned = x * np.cos(kind * 60) + y * np.sin(kind * 60)
        pattern = (turned * count) % 1 < rng.uniform(0.1, 0.6)
        if kind < 0.08:
            pattern = pattern ^ ((y * count) % 1 < 0.4)
    else:
        grain = cv2.resize(rng.normal(0, 1, (count, count)), cloth.shape[1::-1], interpolation=cv2.INTER_CUBIC)
        pattern = grain > rng.normal(0, 0.5)
    colour = rng.uniform(0, 230) * np.exp(rng.normal(0, 0.3, 3))
    shade = cloth[..., :3].mean(2, keepdims=True) / max(float(cloth[..., :3].mean()), 1.0)
    rgb = np.where(pattern[..., None], colour * shade, cloth[..., :3])
    return np.dstack([np.clip(rgb, 0, 255), cloth[..., 3:]]).astype(np.uint8)
