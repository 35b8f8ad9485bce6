from __future__ import annotations

import yaml

from training.stills.figure import SCENES, scene_of
from training.synthetic.identity import GALLERY


def test_every_presenter_of_the_gallery_has_a_scene_with_nothing_misspelt() -> None:
    scenes = yaml.safe_load(SCENES.read_text())
    known = {*scenes.pop("default"), "room"}
    assert set(scenes) == set(GALLERY)
    assert all(set(scene) <= known for scene in scenes.values())
    assert all(scene_of(identity)["room"] for identity in GALLERY.values())
