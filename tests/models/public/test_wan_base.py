"""LR-A2V and refiner on a loaded Wan base: before training they give exactly what the base gives."""

from dataclasses import replace

import pytest
import torch
from diffusers import WanTransformer3DModel
from safetensors.torch import save_file

from models.errors import CheckpointError
from models.public.wan import WanConfig
from models.public.wan_base import WanLRA2V, WanLRA2VConfig, WanRefiner, WanRefinerConfig, load_base

BASE = WanConfig(dim=48, ffn_dim=64, num_layers=2, num_heads=3, in_dim=4, out_dim=4, text_dim=20, freq_dim=32)
LR = WanLRA2VConfig(wan=BASE, latent_channels=4, text_width=20, audio_width=12)
HR = WanRefinerConfig(wan=BASE, latent_channels=4, pose_token_dim=24)
SIZE = (2, 4, 4, 4, 6)  # reference, one motion latent, two new ones
TIMES = torch.tensor([[1, 1, 0.2, 0.2], [1, 1, 0.7, 0.7]])


def diffusers_model(config: WanConfig):
    torch.manual_seed(0)
    model = WanTransformer3DModel(
        num_attention_heads=config.num_heads,
        attention_head_dim=config.head_dim,
        in_channels=config.in_dim,
        out_channels=config.out_dim,
        text_dim=config.text_dim,
        freq_dim=config.freq_dim,
        ffn_dim=config.ffn_dim,
        num_layers=config.num_layers,
        image_dim=config.image_dim,
        added_kv_proj_dim=config.image_dim and config.dim,
    )
    return model.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def oracle(tmp_path_factory):
    """The base by diffusers, and the file that it writes."""
    model, path = diffusers_model(BASE), tmp_path_factory.mktemp("base") / "base.safetensors"
    save_file(model.state_dict(), path)
    return model, path


@pytest.fixture
def lr(oracle) -> WanLRA2V:
    model = WanLRA2V(LR).eval().requires_grad_(False)
    load_base(model.wan, oracle[1])
    return model


@pytest.fixture
def refiner(oracle) -> WanRefiner:
    model = WanRefiner(HR).eval().requires_grad_(False)
    load_base(model.wan, oracle[1])
    return model


def draw(*shape, seed=1):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def expected(model, window, text, image=None, inputs=None):
    """Clean new latents by diffusers: one time step a token, 1000 at noise."""
    inputs = window if inputs is None else inputs
    t = (1000 * (1 - TIMES)).repeat_interleave(6, dim=1)
    velocity = model(inputs, t, text, image).sample[:, :, -2:]
    return window[:, :, -2:] - (1 - TIMES[:, None, -2:, None, None]) * velocity


def assert_equal(actual, wanted):
    assert (actual - wanted).abs().max() <= 1e-5 * wanted.abs().max()


def test_lr_a2v_gives_what_the_base_gives(oracle, lr):
    window, text, audio = draw(*SIZE), draw(2, 7, 20, seed=2), draw(2, 1, 4, 8, 12, seed=3)
    assert_equal(lr(window, TIMES, 2, text, audio), expected(oracle[0], window, text))


def test_sound_is_heard_once_its_values_are_trained(lr):
    window, text, audio = draw(*SIZE), draw(2, 7, 20, seed=2), draw(2, 1, 4, 8, 12, seed=3)
    silent = lr(window, TIMES, 2, text, audio)
    lr.wan.blocks[0].cross_attn.v_audio.weight.normal_(std=0.3)
    heard = lr(window, TIMES, 2, text, audio)
    assert not torch.allclose(heard, silent, atol=1e-3)
    assert not torch.allclose(lr(window, TIMES, 2, text, audio.flip(2)), heard, atol=1e-3)


def test_each_place_hears_its_own_stream(lr):
    window, text, audio = draw(*SIZE), draw(2, 7, 20, seed=2), draw(2, 2, 4, 8, 12, seed=3)
    for block in lr.wan.blocks:
        block.cross_attn.v_audio.weight.normal_(std=0.3)
    first, second = (torch.full((2, 6), stream) for stream in (0, 1))
    alone = lr(window, TIMES, 2, text, audio[:, 1:])
    assert_equal(lr(window, TIMES, 2, text, audio, stream_index=second), alone)
    assert not torch.allclose(lr(window, TIMES, 2, text, audio, stream_index=first), alone, atol=1e-3)


def test_refiner_gives_what_the_base_gives(oracle, refiner):
    window, degraded, pose = draw(*SIZE), draw(*SIZE, seed=2), draw(2, 4, 6, 24, seed=3)
    made = refiner(window, TIMES, 2, degraded, pose)
    assert_equal(made, expected(oracle[0], window, torch.zeros(2, 512, 20)))


def test_refiner_sees_degraded_latents_and_pose_once_they_are_trained(refiner):
    window, degraded, pose = draw(*SIZE), draw(*SIZE, seed=2), draw(2, 4, 6, 24, seed=3)
    before = refiner(window, TIMES, 2, degraded, pose)
    for layer in (refiner.degraded, refiner.pose):
        layer.weight.normal_(std=0.2)
        after = refiner(window, TIMES, 2, degraded, pose)
        assert not torch.allclose(after, before, atol=1e-3)
        before = after


def test_a_base_that_wants_the_first_frame_gets_mask_and_known_latents(tmp_path):
    base = replace(BASE, in_dim=12, image_dim=16)
    model, oracle = WanLRA2V(replace(LR, wan=base)).eval().requires_grad_(False), diffusers_model(base)
    save_file(oracle.state_dict(), tmp_path / "i2v.safetensors")
    load_base(model.wan, tmp_path / "i2v.safetensors")
    window, text, image = draw(*SIZE), draw(2, 512, 20, seed=2), draw(2, 9, 16, seed=3)
    known = torch.tensor([1.0, 1, 0, 0]).view(1, 1, 4, 1, 1)
    inputs = torch.cat([window, known.expand(2, 4, 4, 4, 6), window * known], dim=1)
    made = model(window, TIMES, 2, text, draw(2, 1, 4, 8, 12, seed=4), image=image)
    assert_equal(made, expected(oracle, window, text, image, inputs))


def test_rope_pairs_move_only_where_they_are_used(oracle, lr):
    """A base loaded without `half_split` would be another model; keys of cross-attention stay as they are."""
    state = oracle[0].state_dict()
    ours = lr.wan.blocks[0]
    assert torch.equal(ours.cross_attn.k.weight, state["blocks.0.attn2.to_k.weight"])
    assert not torch.equal(ours.self_attn.k.weight, state["blocks.0.attn1.to_k.weight"])
    assert torch.equal(ours.self_attn.k.weight[1], state["blocks.0.attn1.to_k.weight"][2])


def test_other_files_are_one_clear_error(oracle, lr, tmp_path):
    tensors = oracle[0].state_dict()
    broken = {
        "lacks 1 tensors, the first head.head.bias": {k: v for k, v in tensors.items() if k != "proj_out.bias"},
        "too many, the first blocks.0.more": tensors | {"blocks.0.more": torch.zeros(1)},
        r"proj_out|head.head.bias has shape \[3\]": tensors | {"proj_out.bias": torch.zeros(3)},
        "head.head.bias holds values that are not finite": tensors | {"proj_out.bias": torch.full((16,), torch.nan)},
    }
    for message, changed in broken.items():
        save_file(changed, tmp_path / "broken.safetensors")
        with pytest.raises(CheckpointError, match=message):
            load_base(lr.wan, tmp_path / "broken.safetensors")


def test_what_a_wan_base_does_not_take_is_refused(lr, refiner):
    window, text, audio = draw(*SIZE), draw(2, 7, 20, seed=2), draw(2, 1, 4, 8, 12, seed=3)
    with pytest.raises(ValueError, match="no motion plan, base or kept prefix"):
        lr(window, TIMES, 2, text, audio, base=window)
    with pytest.raises(ValueError, match="no base and no kept prefix"):
        refiner(window, TIMES, 2, window, audio, base=window)
    with pytest.raises(ValueError, match="text_width must be the base's 20"):
        replace(LR, text_width=21)
    with pytest.raises(ValueError, match="got 5 and 4"):
        replace(LR, wan=replace(BASE, in_dim=5))
