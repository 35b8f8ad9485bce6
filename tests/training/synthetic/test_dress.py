from pathlib import Path

import numpy as np
import pytest

from training.synthetic.body import BodyModel
from training.synthetic.dress import base_piece, load_proxy


def write_proxy(folder: Path, rows: list[str], vertices: int) -> None:
    """A proxy of one triangle, its scale references a metre-long pair of base vertices each."""
    lines = [f"{axis}_scale 0 1 1.0" for axis in "xyz"]
    lines += ["delete_verts", "4 - 6 9", "verts 0", *rows]
    (folder / "thing.mhclo").write_text("\n".join(lines))
    mesh = [f"v {i} 0 0" for i in range(vertices)] + ["vt 0 0", "vt 1 0", "vt 0 1", "f 1/1 2/2 3/3"]
    (folder / "thing.obj").write_text("\n".join(mesh))


def test_proxy_follows_its_base_vertices(tmp_path: Path):
    write_proxy(tmp_path, ["7", "0 1 2 0.5 0.25 0.25 0 0 0", "3 3 3 1 0 0 0.5 0.25 -2"], 3)
    piece = load_proxy(tmp_path, "thing", 12)
    base = np.random.default_rng(1).normal(size=(12, 3))
    fitted = piece.fit(base)
    assert np.allclose(fitted[0], base[7])
    assert np.allclose(fitted[1], 0.5 * base[0] + 0.25 * base[1] + 0.25 * base[2])
    x, y, z = np.abs(base[0] - base[1])  # MakeHuman's y is our z, its z our -y
    assert np.allclose(fitted[2] - base[3], [0.5 * x, 2 * y, 0.25 * z])


def test_hidden_ranges_are_read(tmp_path: Path):
    write_proxy(tmp_path, ["0", "1", "2"], 3)
    assert list(np.nonzero(load_proxy(tmp_path, "thing", 12).hidden)[0]) == [4, 5, 6, 9]


def test_mesh_and_binding_must_agree(tmp_path: Path):
    write_proxy(tmp_path, ["0", "1"], 3)
    with pytest.raises(ValueError, match="3 vertices in the mesh, 2 in the binding"):
        load_proxy(tmp_path, "thing", 12)


def test_base_piece_leaves_out_what_is_hidden(body: BodyModel):
    hidden = body.neutral[:, 2] < 0.5
    whole, head = base_piece(body, ("body",)), base_piece(body, ("body",), hidden)
    assert 0 < len(head.faces) < len(whole.faces)
    assert head.fit(body.neutral)[:, 2].min() > 0.4
