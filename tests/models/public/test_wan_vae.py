"""Our Wan2.1 VAE against diffusers' (the oracle), whole and streamed."""

import pytest
import torch
from diffusers import AutoencoderKLWan

from models.public.names import WAN_VAE_FROM_DIFFUSERS, renamed
from models.public.wan_vae import WanVAE, WanVAEConfig


@pytest.fixture(scope="module")
def oracle():
    torch.manual_seed(0)
    model = AutoencoderKLWan(base_dim=8).eval().requires_grad_(False)
    for name, parameter in model.named_parameters():
        gain = name.endswith("gamma")
        spread = 0.1 if parameter.ndim == 1 or gain else parameter[0].numel() ** -0.5
        torch.nn.init.normal_(parameter, float(gain), spread)
    return model


@pytest.fixture(scope="module")
def vae(oracle) -> WanVAE:
    model = WanVAE(WanVAEConfig(width=8)).eval().requires_grad_(False)
    weights = {renamed(name, WAN_VAE_FROM_DIFFUSERS): tensor for name, tensor in oracle.state_dict().items()}
    model.load_state_dict(weights)
    return model


@pytest.fixture(scope="module")
def video() -> torch.Tensor:
    return torch.rand(2, 3, 13, 32, 48, generator=torch.Generator().manual_seed(1)) * 2 - 1


@pytest.fixture(scope="module")
def latents() -> torch.Tensor:
    return torch.randn(2, 16, 4, 4, 6, generator=torch.Generator().manual_seed(2))


def difference(actual, expected):
    return (actual - expected).abs().max() / expected.abs().max()


def test_encode_equals_diffusers(oracle, vae, video):
    expected = (oracle.encode(video).latent_dist.mode() - vae.mean) / vae.std
    assert difference(vae.encode(video), expected) <= 1e-5


def test_decode_equals_diffusers(oracle, vae, latents):
    expected = oracle.decode(latents * vae.std + vae.mean).sample
    assert expected.std() > 0.1 and (expected.abs() < 1).float().mean() > 0.8
    assert difference(vae.decode(latents), expected) <= 1e-5


@pytest.mark.parametrize("sizes", [(1, 3), (2, 1, 1), (1,) * 4])
def test_chunked_decode_matches_whole(vae, latents, sizes):
    cache, parts = None, []
    for part in latents.split(sizes, dim=2):
        frames, cache = vae.decode_chunk(part, cache)
        parts.append(frames)
    assert difference(torch.cat(parts, dim=2), vae.decode(latents)) <= 1e-5


@pytest.mark.parametrize("sizes", [(1, 12), (5, 8), (1, 4, 4, 4)])
def test_chunked_encode_matches_whole(vae, video, sizes):
    cache, parts = None, []
    for part in video.split(sizes, dim=2):
        made, cache = vae.encode_chunk(part, cache)
        parts.append(made)
    assert difference(torch.cat(parts, dim=2), vae.encode(video)) <= 1e-5


def test_later_latents_cannot_change_earlier_frames(vae, latents):
    changed = latents.clone()
    changed[:, :, 2:] += 1
    before, after = vae.decode(latents), vae.decode(changed)
    assert torch.equal(before[:, :, :5], after[:, :, :5])
    assert not torch.allclose(before[:, :, 5:], after[:, :, 5:])


def test_a_cache_holds_no_more_than_two_frames_of_each_layer(vae, latents):
    _, cache = vae.decode_chunk(latents, None)
    assert all(level.shape[2] == 2 and level.untyped_storage().nbytes() == level.nbytes for level in cache)


def test_published_names_and_parameters():
    with torch.device("meta"):
        tensors = WanVAE().state_dict()
    assert len(tensors) == 194 and sum(tensor.numel() for tensor in tensors.values()) == 126_892_531
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    assert shapes["decoder.upsamples.3.time_conv.weight"] == (768, 384, 3, 1, 1)
    assert shapes["encoder.downsamples.6.shortcut.weight"] == (384, 192, 1, 1, 1)
    assert shapes["decoder.middle.1.norm.gamma"] == (384, 1, 1) and shapes["decoder.head.0.gamma"] == (96, 1, 1, 1)


@pytest.mark.parametrize("shape", [(1, 3, 4, 16, 16), (1, 3, 5, 16, 12)])
def test_videos_that_do_not_fit_are_refused(vae, shape):
    with pytest.raises(ValueError, match=r"wanted 1 \+ 4k frames of multiples of 8 pixels"):
        vae.encode(torch.zeros(shape))


def test_half_precision_runs(latents, vae):
    rounded = WanVAE(WanVAEConfig(width=8)).to(torch.bfloat16).requires_grad_(False)
    rounded.load_state_dict(vae.state_dict())
    frames = rounded.decode(latents.bfloat16())
    assert frames.dtype == torch.bfloat16
    assert (frames.float() - vae.decode(latents)).abs().mean() < 0.05
