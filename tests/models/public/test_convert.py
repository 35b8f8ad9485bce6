"""Files in fp8: what is converted, and what a model does that has loaded them."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from models.errors import CheckpointError
from models.fp8 import FP8, FP8Linear, use_fp8
from models.public.convert import convert
from models.public.wan import Wan, WanConfig
from models.public.wan_base import load_base

CONFIG = WanConfig(dim=512, ffn_dim=640, num_layers=1, num_heads=4, in_dim=4, out_dim=4, text_dim=16, freq_dim=32)


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wan")
    torch.manual_seed(0)
    save_file(Wan(CONFIG).bfloat16().state_dict(), folder / "wan.safetensors")
    return folder / "wan.safetensors"


@pytest.fixture(scope="module")
def converted(published, tmp_path_factory):
    return convert(published, tmp_path_factory.mktemp("fp8") / "out", "fp8")


def test_large_layers_of_blocks_are_e4m3_and_the_rest_is_not(published, converted):
    made, before = load_file(converted / "model.safetensors"), load_file(published)
    quantised = {name for name, tensor in made.items() if tensor.dtype == FP8}
    assert len(quantised) == 10 and all(name.startswith("blocks.0.") for name in quantised)
    assert made["blocks.0.modulation"].dtype == torch.float32 and made["head.head.weight"].dtype == torch.bfloat16
    scales = made["blocks.0.ffn.0.scales"]
    restored = made["blocks.0.ffn.0.weight"].float() * scales[:, None]
    assert (restored - before["blocks.0.ffn.0.weight"].float()).abs().max() <= 0.04 * restored.abs().max()


def test_a_model_from_an_fp8_file_is_the_model_turned_to_fp8(published, converted):
    loaded, turned = (Wan(CONFIG).eval().requires_grad_(False) for _ in range(2))
    load_base(loaded, converted)
    load_base(turned, published)
    use_fp8(turned)
    assert isinstance(loaded.blocks[0].self_attn.q, FP8Linear)
    generator = torch.Generator().manual_seed(1)
    latents, text = torch.randn(1, 4, 2, 4, 4, generator=generator), torch.randn(1, 3, 16, generator=generator)
    t = torch.tensor([500.0])
    made, expected = (model(latents, t, model.look(text)) for model in (loaded, turned))
    assert (made - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_on_the_meta_device_a_model_takes_the_files_dtypes(converted):
    with torch.device("meta"):
        model = Wan(CONFIG)
    load_base(model, converted)
    assert not any(tensor.is_meta for tensor in model.state_dict().values())
    assert model.patch_embedding.weight.dtype == torch.bfloat16 and model.blocks[0].ffn[0].weight.dtype == FP8


def test_shards_are_cut_by_size_and_read_together(published, tmp_path, monkeypatch):
    monkeypatch.setattr("models.public.convert.SHARD_BYTES", 1 << 20)
    folder = convert(published, tmp_path / "out", "bf16")
    assert len(list(folder.glob("model-*.safetensors"))) > 2
    whole, again = Wan(CONFIG), Wan(CONFIG)
    load_base(whole, published)
    load_base(again, folder)
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), again.parameters(), strict=True))


def test_fp8_is_made_once_and_scales_need_their_layer(converted, tmp_path):
    with pytest.raises(CheckpointError, match="fp8 already"):
        convert(converted, tmp_path / "again", "bf16")
    tensors = load_file(converted / "model.safetensors") | {"head.norm.scales": torch.ones(4)}
    save_file(tensors, tmp_path / "odd.safetensors")
    with pytest.raises(CheckpointError, match="head.norm.scales belongs to no linear layer"):
        load_base(Wan(CONFIG), tmp_path / "odd.safetensors")
