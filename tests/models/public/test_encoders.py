"""Text and image encoders of tiny random models, from folders as they are published."""

import pytest
import torch
from transformers import CLIPVisionConfig, CLIPVisionModel, UMT5Config, UMT5EncoderModel

from models.errors import CheckpointError
from models.public.encoders import ImageEncoder, TextEncoder


class Bytes:
    """A tokenizer by bytes, with an end, as `transformers` calls one."""

    def __call__(self, prompts, max_length, **_):
        rows = [[*(byte + 3 for byte in prompt.encode()), 1][:max_length] for prompt in prompts]
        ids = torch.tensor([row + [0] * (max_length - len(row)) for row in rows])
        return {"input_ids": ids, "attention_mask": (ids > 0).long()}


@pytest.fixture(scope="module")
def umt5():
    torch.manual_seed(0)
    config = UMT5Config(d_model=16, d_ff=32, d_kv=8, num_heads=2, num_layers=2, vocab_size=300)
    return UMT5EncoderModel(config).eval()


def test_text_ends_in_zeros_and_does_not_see_them(umt5):
    encode = TextEncoder(umt5, Bytes(), tokens=12)
    states = encode(["hello", ""])
    assert states.shape == (2, 12, 16)
    assert states[0, :6].abs().min(dim=1).values.max() > 0 and not states[0, 6:].any() and not states[1, 1:].any()
    longer = TextEncoder(umt5, Bytes(), tokens=20)(["hello"])
    assert (longer[0, :6] - states[0, :6]).abs().max() <= 1e-5


def test_image_features_are_the_last_but_one(tmp_path):
    torch.manual_seed(0)
    config = CLIPVisionConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=3, num_attention_heads=2, image_size=28, patch_size=14
    )
    model = CLIPVisionModel(config).eval()
    model.save_pretrained(tmp_path / "image_encoder")
    encode = ImageEncoder.load(tmp_path / "image_encoder", torch.float32)
    encode.size = 28
    picture = torch.rand(1, 3, 40, 60) * 2 - 1
    features = encode(picture)
    assert features.shape == (1, 5, 16)
    shorter = CLIPVisionModel(CLIPVisionConfig(**config.to_dict() | {"num_hidden_layers": 2})).eval()
    shorter.load_state_dict(model.state_dict(), strict=False)
    pixels = torch.nn.functional.interpolate(picture, size=(28, 28), mode="bicubic", align_corners=False) / 2 + 0.5
    mean, std = torch.tensor([0.48145466, 0.4578275, 0.40821073]), torch.tensor([0.26862954, 0.26130258, 0.27577711])
    seen = shorter((pixels - mean.view(3, 1, 1)) / std.view(3, 1, 1), output_hidden_states=True).hidden_states[-1]
    assert (features - seen).abs().max() <= 1e-5


def test_text_encoder_loads_from_its_folder(umt5, tmp_path, monkeypatch):
    umt5.save_pretrained(tmp_path / "text_encoder")
    monkeypatch.setattr("transformers.AutoTokenizer.from_pretrained", lambda *_, **__: Bytes())
    encode = TextEncoder.load(tmp_path, torch.float32)
    encode.tokens = 8
    assert torch.equal(encode(["hi"]), TextEncoder(umt5, Bytes(), tokens=8)(["hi"]))


def test_folders_that_do_not_fit_are_one_clear_error(tmp_path):
    with pytest.raises(CheckpointError, match="does not exist"):
        TextEncoder.load(tmp_path)
    (tmp_path / "image_encoder").mkdir()
    torch.save({}, tmp_path / "image_encoder" / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="is a pickle"):
        ImageEncoder.load(tmp_path / "image_encoder")
