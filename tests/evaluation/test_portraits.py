"""Figures of what is found in portraits, on faces that are found perfectly and with a known error."""

from dataclasses import replace

import numpy as np
import pytest

from evaluation import portraits
from evaluation.portraits import Findings, report, score_face, score_layout
from models.portrait.landmarks import Face, fit_head
from models.portrait.layout import Layout
from tests.training.synthetic.portraits.toy import toy_portraits


@pytest.fixture
def portrait():
    return toy_portraits(1)[0]


def true_face(portrait) -> Face:
    rotation, scale = fit_head(portrait.landmarks)
    return Face((0, 0, 1, 1), 1.0, portrait.landmarks, portrait.irises, rotation, scale)


def test_a_perfect_face_has_no_error(portrait):
    score = score_face(true_face(portrait), portrait.landmarks, portrait.irises, portrait.seen)
    assert max(score.all, score.lids, score.lips, score.irises, score.depth) == 0 and score.angle_deg < 0.1


def test_errors_are_shares_of_the_eye_distance(portrait):
    face = true_face(portrait)
    moved = replace(face, landmarks=face.landmarks + np.array([0.03 * face.scale, 0, 0.2 * face.scale], np.float32))
    score = score_face(moved, portrait.landmarks, portrait.irises, portrait.seen)
    assert (score.all, score.lids, score.lips) == (pytest.approx(0.03, rel=1e-3),) * 3
    assert score.depth == pytest.approx(0.2, rel=1e-3)


def test_hidden_landmarks_do_not_count(portrait):
    seen = np.zeros(len(portrait.seen), bool)
    seen[:50] = True
    landmarks = portrait.landmarks.copy()
    landmarks[50:] += 500
    face = replace(true_face(portrait), landmarks=landmarks)
    assert score_face(face, portrait.landmarks, portrait.irises, seen).all == 0


def test_layouts_are_compared_where_the_person_is():
    front = np.full((32, 32), 0.5, np.float16)
    shares = np.zeros((32, 32, 3), np.uint8)
    shares[8:24, 8:24] = (255, 0, 255)
    maps = {name: np.zeros((128, 128), np.float32) for name in ("front", "back", "head", "clavicle", "matte")}
    maps["matte"][32:96, 32:96], maps["head"][:] = 1, 1
    maps["front"][:], maps["back"][:] = 0.5 * 10 + 3, -10
    layout = Layout(0, 0, 64, 10, **maps)
    score = score_layout(layout, (front, front * 0 - 1, shares), 64, unit=10, scale=10)
    assert score.matte_iou == 1 and score.head == 0 and score.clavicle == 0
    assert score.front == pytest.approx(0, abs=1e-3)  # a common offset is nobody's error
    assert score.back == pytest.approx(0.3, abs=1e-3)
    half = replace(layout, matte=np.where(np.arange(128) < 64, maps["matte"], 0))
    assert score_layout(half, (front, front, shares), 64, 10, 10).matte_iou == pytest.approx(0.5)


def test_the_report_names_every_figure(portrait):
    score = score_face(true_face(portrait), portrait.landmarks, portrait.irises, portrait.seen)
    text = report(Findings([score], [], 2, 1, 0, 3, [0.1], []), "python -m evaluation.portraits")
    assert "Faces found: 1 of 2" in text and "3 in 200" in text and "| lids | 0.000" in text


def test_a_folder_without_test_people_is_said(tmp_path):
    from training.synthetic.portraits.shards import PortraitSet, write_shard

    write_shard(tmp_path / "0000000", toy_portraits(1), [0])
    with pytest.raises(ValueError, match="no people from seed 900000"):
        portraits.measure(PortraitSet(tmp_path), tmp_path)
