import numpy as np
import pytest

from models.portrait.face_mesh import FACE_ACTIONS
from training.synthetic.bake import quantise
from training.synthetic.body import BODY_FILE, BodyModel, Phenotype, load_body


def test_body_file_is_small_enough_to_commit():
    assert BODY_FILE.stat().st_size < 12e6


def test_facial_actions_stand_in_the_order_of_the_visemes(body: BodyModel):
    assert body.action_labels == FACE_ACTIONS


def test_shape_changes_with_every_phenotype(body: BodyModel):
    middle = Phenotype(0.5, 0.8, 0.5, 1, 1, 1)
    reference = body.shape(middle, {}).vertices
    for other in (
        Phenotype(0.9, 0.8, 0.5, 1, 1, 1),
        Phenotype(0.5, 0.95, 0.5, 1, 1, 1),
        Phenotype(0.5, 0.8, 0.7, 1, 1, 1),
        Phenotype(0.5, 0.8, 0.5, 1, 0, 0),
    ):
        assert np.abs(body.shape(other, {}).vertices - reference).max() > 0.002


def test_slider_of_both_signs_moves_the_face_only(body: BodyModel):
    person = Phenotype(0.1, 0.7)
    reference = body.shape(person, {}).vertices
    for value in (-0.5, 0.5):
        moved = np.abs(body.shape(person, {"nose-scale-horiz-incr": value}).vertices - reference).max(1)
        assert 0.0005 < moved.max() < 0.02
        assert moved[body.neutral[:, 2] < 0.5].max() == 0


def test_eyeballs_stay_when_the_eyes_look(body: BodyModel):
    looks = [i for i, name in enumerate(body.action_labels) if name.startswith("eyeLook")]
    assert np.abs(body.actions()[looks][:, 14598:14742]).max() == 0


def test_skinning_weights_sum_to_one(body: BodyModel):
    skin = np.unique(body.faces["body"][:, :4])
    assert np.allclose(np.asarray(body.weights.sum(1)).reshape(-1)[skin], 1, atol=1e-3)


def test_unknown_slider_and_bad_phenotype_are_refused(body: BodyModel):
    with pytest.raises(ValueError, match="no slider 'nose-of-gogol'"):
        body.shape(Phenotype(0.5, 0.8), {"nose-of-gogol": 1.0})
    with pytest.raises(ValueError, match="sex is 1.2"):
        Phenotype(1.2, 0.8)


def test_missing_file_says_what_to_run(tmp_path):
    with pytest.raises(FileNotFoundError, match="--bake"):
        load_body(tmp_path / "none.npz")


def test_quantised_field_is_within_half_a_step():
    field = np.random.default_rng(0).normal(size=(50, 3))
    stored, scale = quantise(field)
    assert np.abs(stored * float(scale) - field).max() <= 0.51 * float(scale)
