import numpy as np
import pytest

from training.synthetic.body import BodyModel, Phenotype
from training.synthetic.identity import GALLERY, Identity, sample_identity
from training.synthetic.wardrobe import OUTFITS


def test_gallery_is_named_and_diverse():
    assert len(GALLERY) >= 6
    assert all(name == identity.name and identity.description for name, identity in GALLERY.items())
    assert {identity.is_female for identity in GALLERY.values()} == {True, False}
    assert {identity.dark_skin for identity in GALLERY.values()} == {True, False}
    assert all(identity.outfit in OUTFITS for identity in GALLERY.values())


def test_random_identities_repeat_by_seed_and_differ_between_seeds():
    assert sample_identity(7) == sample_identity(7)
    people = [sample_identity(seed) for seed in range(40)]
    assert len({person.tone for person in people}) == 40
    assert len({person.hair for person in people}) >= 4
    assert len({person.room for person in people}) >= 7
    assert all(person.outfit in OUTFITS for person in people)


def test_faces_of_two_seeds_differ_by_millimetres(body: BodyModel):
    def face(seed: int) -> np.ndarray:
        identity = Identity("someone", seed, Phenotype(0.2, 0.75))
        shape = body.shape(identity.phenotype, identity.slider_values(body.sliders))
        return shape.vertices[body.neutral[:, 2] > 0.6]

    difference = np.linalg.norm(face(1) - face(2), axis=1)
    assert 0.001 < difference.max() < 0.03


def test_unknown_room_is_refused():
    with pytest.raises(ValueError, match="no room"):
        Identity("someone", 1, Phenotype(0.2, 0.75), room="cellar")
