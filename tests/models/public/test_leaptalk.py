import pytest
import torch

from models.errors import CheckpointError
from models.public.leaptalk import merge_lora, with_audio_projection

A, B = "base_model.model.q.lora_A.weight", "base_model.model.q.lora_B.weight"


def base():
    return {"q.weight": torch.zeros(3, 4), "audio_proj.norm.weight": torch.ones(2)}


def test_a_lora_is_added_by_its_scale():
    down, up = torch.randn(2, 4), torch.randn(3, 2)
    merged = merge_lora(base(), {A: down, B: up}, scale=0.5)
    torch.testing.assert_close(merged["q.weight"], 0.5 * up @ down)
    assert merged["audio_proj.norm.weight"] is not None


@pytest.mark.parametrize(
    ("lora", "words"),
    [
        ({A: torch.zeros(2, 4)}, "without its lora_B"),
        ({B: torch.zeros(3, 2)}, "without its lora_A"),
        ({A: torch.zeros(2, 5), B: torch.zeros(3, 2)}, "shapes"),
        ({A: torch.zeros(2, 4), B: torch.zeros(3, 1)}, "shapes"),
        ({"base_model.model.k.lora_A.weight": torch.zeros(2, 4)}, "without its lora_B"),
        ({"q.lora_down": torch.zeros(2, 4)}, "no LoRA tensor"),
    ],
)
def test_a_lora_that_does_not_fit_is_refused(lora, words):
    with pytest.raises(CheckpointError, match=words):
        merge_lora(base(), lora, scale=1.0)


def test_a_lora_of_a_weight_that_is_not_there_is_refused():
    names = (name.replace(".q.", ".other.") for name in (A, B))
    with pytest.raises(CheckpointError, match=r"other\.weight"):
        merge_lora(base(), dict(zip(names, (torch.zeros(2, 4), torch.zeros(3, 2)), strict=True)), scale=1.0)


def test_an_audio_projection_replaces_all_of_the_base():
    replaced = with_audio_projection(base(), {"norm.weight": torch.full((2,), 3.0)})
    assert replaced["audio_proj.norm.weight"].tolist() == [3, 3]
    with pytest.raises(CheckpointError, match="norm.bias"):
        with_audio_projection(base(), {"norm.weight": torch.zeros(2), "norm.bias": torch.zeros(2)})
    with pytest.raises(CheckpointError, match="shape"):
        with_audio_projection(base(), {"norm.weight": torch.zeros(3)})
