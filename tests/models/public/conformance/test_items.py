import json

import pytest
import torch
from safetensors.torch import save_file

from models.public.conformance import rule
from models.public.conformance.__main__ import main
from models.public.conformance.fixture import Comparison, Fixture, FixtureError
from models.public.conformance.items import CHECKS, check_item


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """A folder with an item `toy` of two tensors, one stored whole and one by some of its values."""
    whole, large = torch.arange(6.0).view(2, 3), rule.normals("large", (20, 50), seed=1)
    places = rule.positions("positions.toy.large", 30, 1000)
    save_file({"whole": whole, "large@values": large.flatten()[places]}, tmp_path / "toy.safetensors")
    described = {
        name: {"shape": list(x.shape), "mean": x.mean().item(), "std": x.std().item(), "absmax": x.abs().max().item()}
        for name, x in {"whole": whole, "large": large}.items()
    }
    (tmp_path / "toy.json").write_text(json.dumps({"seed": 1, "tensors": described}))
    tensors = {"whole": whole, "large": large}

    def check(fixture):
        for name, tensor in tensors.items():
            fixture.compare(name, tensor, limit=1e-5)

    monkeypatch.setitem(CHECKS, "toy", check)
    return tmp_path, tensors


def test_equal_numbers_pass(toy, capsys):
    assert main([str(toy[0])]) == 0
    out = capsys.readouterr().out
    assert out.startswith("toy ") and "passed" in out and "1.0e-05" in out


def test_a_difference_above_the_limit_fails(toy, capsys):
    toy[1]["whole"] = toy[1]["whole"] + 1e-4
    assert main([str(toy[0])]) == 1
    assert "FAILED" in capsys.readouterr().out


def test_a_difference_outside_the_stored_values_fails(toy):
    folder, tensors = toy
    stored = set(rule.positions("positions.toy.large", 30, 1000).tolist())
    tensors["large"] = tensors["large"].clone()
    tensors["large"].view(-1)[[place for place in range(1000) if place not in stored]] += 0.1
    assert not check_item(folder, "toy").is_passed


def test_numbers_that_are_not_finite_fail(toy):
    toy[1]["whole"] = torch.full((2, 3), float("nan"))
    assert not check_item(toy[0], "toy").is_passed


def test_a_tensor_that_is_left_out_fails(toy):
    del toy[1]["large"]
    outcome = check_item(toy[0], "toy")
    assert not outcome.is_passed and "large" in outcome.lines[-1]


def test_a_result_of_another_shape_fails(toy):
    toy[1]["whole"] = toy[1]["whole"].T
    assert "[2, 3]" in check_item(toy[0], "toy").lines[-1]


def test_an_unknown_item_fails(toy, capsys):
    (toy[0] / "unheard_of.json").write_text("{}")
    assert main([str(toy[0])]) == 1
    assert "unheard_of" in capsys.readouterr().out


def test_a_half_stored_item_fails(toy):
    (toy[0] / "toy.safetensors").unlink()
    assert "cannot be read" in check_item(toy[0], "toy").lines[-1]


def test_an_item_that_describes_what_it_does_not_store_cannot_be_read(toy):
    about = json.loads((toy[0] / "toy.json").read_text())
    about["tensors"]["more"] = about["tensors"]["whole"]
    (toy[0] / "toy.json").write_text(json.dumps(about))
    with pytest.raises(FixtureError, match="more"):
        Fixture.read(toy[0], "toy")


def test_an_empty_folder_is_an_error(tmp_path, capsys):
    assert main([str(tmp_path)]) == 2
    assert "no items" in capsys.readouterr().err


def test_rms_is_against_the_reference(toy):
    fixture = Fixture.read(toy[0], "toy")
    fixture.compare("whole", fixture.expected["whole"] * 1.1, limit=0.2, measure="rms")
    assert fixture.comparisons[0].difference == pytest.approx(0.1, rel=1e-5)


def test_a_limit_of_zero_wants_equality():
    assert Comparison("x", 0.0, 0.0, "max").is_passed
    assert not Comparison("x", 1e-9, 0.0, "max").is_passed
