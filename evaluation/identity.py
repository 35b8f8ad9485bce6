"""FaceSIM: is it still the same person, by dlib's recognition network.

dlib describes an aligned face by 128 numbers and calls two faces the same person when their distance is below 0.6.
Similarity here is 1 − distance: about 0.7 … 0.85 for renders of one presenter, 0.3 … 0.4 between presenters, a wider
and more honest scale than the cosine of the same vectors, which is above 0.8 for any two faces.

The network and its five-point aligner are public domain / CC0 files of the package `face_recognition_models`, found
without importing it (its import needs a package that Python no longer ships).
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from evaluation.takes import FPS

_PACKAGE = "face_recognition_models"
_NETWORK, _ALIGNER = "dlib_face_recognition_resnet_model_v1.dat", "shape_predictor_5_face_landmarks.dat"
_MIN_SIDE = 256  # smaller pictures are enlarged: the detector knows faces from 80 pixels


@dataclass(frozen=True)
class IdentityScore:
    """Similarity of a clip's faces to the reference.

    Attributes:
        similarity: mean of 1 − distance over the sampled frames with a face; NaN if there is none.
        times_s: [K] of those frames. similarities: [K].
        share_found: share of the sampled frames in which a face was detected.
    """

    similarity: float
    times_s: np.ndarray
    similarities: np.ndarray
    share_found: float

    def within(self, start_s: float, stop_s: float) -> float:
        """Mean similarity between two times; NaN if no face was found there."""
        chosen = self.similarities[(self.times_s >= start_s) & (self.times_s < stop_s)]
        return float(chosen.mean()) if len(chosen) else float("nan")


class FaceRecogniser:
    """Detector, aligner and recognition network, loaded once.

    Raises:
        ValueError: if dlib or the model files are not installed, or `models_folder` lacks them.
    """

    def __init__(self, models_folder: Path | None = None) -> None:
        try:
            import dlib
        except ModuleNotFoundError as error:
            raise ValueError("identity needs dlib: install infinity-avatar[identity]") from error
        folder = models_folder or find_models()
        for name in (_NETWORK, _ALIGNER):
            if not (folder / name).is_file():
                raise ValueError(f"identity needs {name}, not found in {folder}")
        self._detect = dlib.get_frontal_face_detector()
        self._align = dlib.shape_predictor(str(folder / _ALIGNER))
        self._network = dlib.face_recognition_model_v1(str(folder / _NETWORK))

    def describe(self, frame: np.ndarray) -> np.ndarray | None:
        """Descriptor float64 [128] of the largest face of a frame uint8 [H, W, 3], None if there is no face."""
        scale = _MIN_SIDE / min(frame.shape[:2])
        if scale > 1:
            frame = cv2.resize(frame, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
        frame = np.ascontiguousarray(frame)
        faces = list(self._detect(frame, 0))
        if not faces:
            return None
        face = max(faces, key=lambda box: box.width() * box.height())
        return np.array(self._network.compute_face_descriptor(frame, self._align(frame, face)))

    def compare(self, frames: np.ndarray, reference: np.ndarray, every_frames: int = 12) -> IdentityScore:
        """Similarity of every twelfth frame of uint8 [T, H, W, 3] to a reference picture uint8 [H, W, 3].

        Raises:
            ValueError: if the reference shows no face.
        """
        wanted = self.describe(reference)
        if wanted is None:
            raise ValueError("no face was found in the reference picture")
        indices = np.arange(every_frames // 2, len(frames), every_frames)
        found = [(index, self.describe(frames[index])) for index in indices]
        times_s = np.array([index / FPS for index, face in found if face is not None])
        similarities = np.array([similarity(face, wanted) for _, face in found if face is not None])
        return IdentityScore(
            similarity=float(similarities.mean()) if len(similarities) else float("nan"),
            times_s=times_s,
            similarities=similarities,
            share_found=len(similarities) / max(len(indices), 1),
        )


def similarity(first: np.ndarray, second: np.ndarray) -> float:
    """1 − Euclidean distance of two descriptors [128]."""
    return 1 - float(np.linalg.norm(first - second))


def similarity_drop(score: IdentityScore, at_s: float = 10.0, end_s: float = 60.0, window_s: float = 10.0) -> float:
    """Relative drop of similarity from the window around `at_s` to the one that ends at `end_s`; negative = a rise."""
    before = score.within(at_s - window_s / 2, at_s + window_s / 2)
    after = score.within(end_s - window_s, end_s + 1e-6)
    return 1 - after / before


def find_models() -> Path:
    """Folder of the installed model files.

    Raises:
        ValueError: if their package is not installed.
    """
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise ValueError(f"identity needs the package {_PACKAGE}, which is not installed")
    return Path(list(spec.submodule_search_locations)[0]) / "models"
