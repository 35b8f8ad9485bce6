"""Keypoints of 133-point whole-body networks (RTMW, RTMPose, DWPose) in the place of the shipped estimator.

`rtmlib` runs an ONNX file that lies on disk. Its points are COCO-WholeBody's: 17 body, 6 feet, 68 face, 21 a hand; what
ours lack there is between neighbours.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from models.errors import CheckpointError
from models.pose import BACKGROUND_POINTS, BODY, FACE_POINTS, HANDS, KEYPOINTS, PERSON_POINTS

LEAST_SCORE = 0.3  # of a point that counts as seen
_FACE, _LEFT_HAND, _RIGHT_HAND = 23, 91, 112
_LEFT_EYE, _RIGHT_EYE, _LEFT_EAR, _RIGHT_EAR, _LEFT_SHOULDER, _RIGHT_SHOULDER = 1, 2, 3, 4, 5, 6
_LEFT_HIP, _RIGHT_HIP = 11, 12
_SHOULDERS = (_LEFT_SHOULDER, _RIGHT_SHOULDER)

Read = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]  # BGR picture → points [P, 133, 2], scores [P, 133]


def _sources() -> list[tuple[int, ...]]:
    """For each of our person points the 133 points that it is the middle of."""
    face: list[tuple[int, ...]] = [(_FACE + point,) for point in range(60)]  # contour, brows, nose, eyes, outer lips
    for first in (61, 65):  # three points of the inner lip each, ours are five
        a, b, c = (_FACE + first + step for step in range(3))
        face += [(a,), (a, b), (b,), (b, c), (c,)]
    body: list[tuple[int, ...]] = [(_LEFT_EAR, _RIGHT_EAR), _SHOULDERS]  # head, neck
    body += [(5,), (7,), (9,), (6,), (8,), (10,)]  # shoulder, elbow, wrist; left, right
    body += [(*_SHOULDERS, _LEFT_HIP, _RIGHT_HIP), (_LEFT_EYE,), (_RIGHT_EYE,)]  # chest, eyes
    hands: list[tuple[int, ...]] = [(first + point,) for first in (_LEFT_HAND, _RIGHT_HAND) for point in range(21)]
    return face + body + hands


_SOURCES = _sources()
assert len(_SOURCES) == PERSON_POINTS and BODY.start == FACE_POINTS and HANDS.stop == KEYPOINTS - BACKGROUND_POINTS


class WholeBodyPose:
    """A `PoseEstimator`: the person that is surest, in a box as large as the frame."""

    def __init__(self, read: Read) -> None:
        self.read = read

    @classmethod
    def load(cls, path: Path, device: str = "cpu") -> WholeBodyPose:
        """Of an ONNX file.

        Raises:
            CheckpointError: if it is missing or is no such network, or `rtmlib` is not installed.
        """
        if not path.is_file():  # rtmlib would take it for an address
            raise CheckpointError(f"{path} does not exist")
        try:
            import onnxruntime
            from rtmlib import RTMPose
        except ImportError as error:
            raise CheckpointError(
                f"keypoints by ONNX need {error.name}: pip install 'infinity-avatar[pose]'"
            ) from error
        try:
            session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
            height, width = session.get_inputs()[0].shape[-2:]
            return cls(RTMPose(str(path), model_input_size=(width, height), backend="onnxruntime", device=device))
        except Exception as error:  # onnxruntime has no errors of its own that could be named
            raise CheckpointError(f"{path} is no network for keypoints: {str(error).splitlines()[0]}") from error

    def __call__(self, frames: Tensor) -> Tensor:
        """Frames [G, 3, H, W] in 0 … 1 → keypoints [G, 143, 3]; background points invisible.

        Raises:
            CheckpointError: if the network has not 133 points.
        """
        height, width = frames.shape[2:]
        pictures = (frames.clamp(0, 1) * 255).round().to("cpu", torch.uint8).permute(0, 2, 3, 1).flip(-1)  # to BGR
        keypoints = frames.new_zeros(len(frames), KEYPOINTS, 3)
        for index, picture in enumerate(pictures):
            points, scores = self.read(np.ascontiguousarray(picture.numpy()))
            if points.shape[1:] != (133, 2):
                raise CheckpointError(f"the network has {points.shape[1]} points, 133 are wanted")
            surest = int(scores.mean(axis=1).argmax())
            person = points[surest] / (width, height)
            rows = [(*person[list(of)].mean(axis=0), scores[surest][list(of)].min() > LEAST_SCORE) for of in _SOURCES]
            keypoints[index, :PERSON_POINTS] = torch.tensor(np.array(rows, dtype=np.float32))
        return keypoints
