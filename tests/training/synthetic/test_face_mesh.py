"""The face mesh against the body that it was baked from."""

import json

import numpy as np
from safetensors import safe_open

from models.portrait.face_mesh import FACE_ACTIONS, FACE_MESH_FILE, load_face_mesh
from training.synthetic.body import load_body
from training.synthetic.face_mesh import make_face_mesh


def test_the_shipped_file_is_what_the_body_gives():
    arrays, loops = make_face_mesh(load_body())
    with safe_open(FACE_MESH_FILE, framework="numpy") as file:
        for name, array in arrays.items():
            assert np.allclose(file.get_tensor(name), array, atol=1e-4), name
        assert json.loads(file.metadata()["loops"]) == loops


def test_actions_are_those_of_the_body():
    assert load_body().action_labels == FACE_ACTIONS


def test_base_vertices_lie_where_the_canonical_face_says():
    mesh, body = load_face_mesh(), load_body()
    points = body.neutral[mesh.base_vertices] @ np.array([[1, 0, 0], [0, 0, -1], [0, -1, 0]]).T
    fit = np.linalg.lstsq(np.c_[points, np.ones(mesh.count)], mesh.canonical, rcond=None)[0]
    left = np.c_[points, np.ones(mesh.count)] @ fit - mesh.canonical
    assert np.abs(left).mean() < 0.02 and np.diag(fit)[:3].min() > 0  # the same face, only of the mean identity
