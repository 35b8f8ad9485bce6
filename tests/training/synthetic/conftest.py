"""Rendering fixtures: the bare look, so that no asset has to be there."""

from collections.abc import Iterator

import numpy as np
import pytest

from models.portrait.face_mesh import FACE_INDEX
from training.synthetic.body import BodyModel, load_body
from training.synthetic.identity import GALLERY
from training.synthetic.presenter import Presenter
from training.synthetic.renderer import Renderer
from training.synthetic.rig import FramePose


def pose(face: dict[str, float] | None = None, **motion: float) -> FramePose:
    """A frame pose by names."""
    from models.motion import MOTION_CHANNELS

    actions = np.zeros(len(FACE_INDEX), np.float32)
    for name, value in (face or {}).items():
        for side in [name] if name in FACE_INDEX else [f"{name}Left", f"{name}Right"]:
            actions[FACE_INDEX[side]] = value
    channels = np.array([motion.pop(name, 0.0) for name in MOTION_CHANNELS], np.float32)
    assert not motion, f"unknown channels {sorted(motion)}"
    return FramePose(face=actions, motion=channels)


@pytest.fixture(scope="session")
def body() -> BodyModel:
    return load_body()


@pytest.fixture(scope="session")
def renderer() -> Iterator[Renderer]:
    try:
        made = Renderer(size=128, supersample=1.5, shadow_size=256)
    except Exception as error:  # no EGL on this machine: moderngl raises plain exceptions
        pytest.skip(f"no EGL context: {error}")
    yield made
    made.release()


@pytest.fixture(scope="session")
def presenter(renderer: Renderer) -> Presenter:
    return Presenter(renderer, GALLERY["maya"])
