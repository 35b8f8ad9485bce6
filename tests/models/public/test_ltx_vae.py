"""Our LTX VAE against diffusers' (the oracle)."""

import pytest
import torch
from diffusers import AutoencoderKLLTXVideo

from models.errors import CheckpointError
from models.public.ltx_vae import LTXVAE, LTXVAEConfig

TINY = {
    "latent_channels": 6,
    "block_out_channels": [8, 16, 24, 24],
    "layers_per_block": [1, 2, 1, 1, 1],
    "spatio_temporal_scaling": [True, True, True, False],
    "in_channels": 3,
    "out_channels": 3,
    "patch_size": 4,
    "patch_size_t": 1,
    "encoder_causal": True,
    "decoder_causal": False,
}


@pytest.fixture(scope="module")
def oracle():
    torch.manual_seed(0)
    widths = {f"decoder_{name}": TINY[name] for name in ("block_out_channels", "layers_per_block")}
    model = AutoencoderKLLTXVideo(**TINY, **widths).eval().requires_grad_(False)
    model.latents_mean.normal_()
    model.latents_std.uniform_(0.5, 1.5)
    return model


@pytest.fixture(scope="module")
def vae(oracle) -> LTXVAE:
    model = LTXVAE(LTXVAEConfig.from_published(TINY)).eval().requires_grad_(False)
    model.load_state_dict(oracle.state_dict())
    return model


@pytest.fixture(scope="module")
def video() -> torch.Tensor:
    return torch.rand(2, 3, 9, 64, 96, generator=torch.Generator().manual_seed(1)) * 2 - 1


def test_posterior_equals_diffusers(oracle, vae, video):
    mean, log_variance = vae.posterior(video)
    expected = oracle.encode(video).latent_dist
    assert (mean - expected.mean).abs().max() <= 1e-5 * expected.mean.abs().max()
    assert (log_variance - expected.logvar).abs().max() <= 1e-5 * expected.logvar.abs().max()


def test_latents_are_normalised_and_sampled_on_demand(vae, video):
    mean, log_variance = vae.posterior(video)
    noise = torch.randn(mean.shape, generator=torch.Generator().manual_seed(2))
    for given, wanted in ((None, mean), (noise, mean + (0.5 * log_variance).exp() * noise)):
        restored = vae.encode(video, given) * vae.latents_std.view(-1, 1, 1, 1) + vae.latents_mean.view(-1, 1, 1, 1)
        assert (restored - wanted).abs().max() <= 1e-5


def test_decode_equals_diffusers(oracle, vae):
    latents = torch.randn(2, 6, 3, 2, 3, generator=torch.Generator().manual_seed(3))
    expected = oracle.decode(latents * vae.latents_std.view(-1, 1, 1, 1) + vae.latents_mean.view(-1, 1, 1, 1)).sample
    assert expected.shape == (2, 3, 17, 64, 96) and expected.std() > 0.05
    assert (vae.decode(latents) - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_decoder_sees_what_comes_later(vae):
    latents = torch.randn(1, 6, 3, 2, 2, generator=torch.Generator().manual_seed(4))
    assert not torch.allclose(vae.decode(latents[:, :, :2]), vae.decode(latents)[:, :, :9], atol=1e-3)


def test_published_names_and_parameters():
    with torch.device("meta"):
        tensors = LTXVAE().state_dict()
    assert len(tensors) == 190 and sum(tensor.numel() for tensor in tensors.values()) == 419_193_905
    assert tensors["decoder.up_blocks.2.conv_in.norm3.weight"].shape == (512,)
    assert tensors["decoder.up_blocks.1.upsamplers.0.conv.conv.weight"].shape == (4096, 512, 3, 3, 3)


@pytest.mark.parametrize(("name", "value"), [("decoder_causal", True), ("timestep_conditioning", True)])
def test_other_ltx_vaes_are_refused(name, value):
    with pytest.raises(CheckpointError, match=f"{name} True"):
        LTXVAEConfig.from_published(TINY | {name: value})


@pytest.mark.parametrize("shape", [(1, 3, 8, 64, 64), (1, 3, 9, 64, 48)])
def test_videos_that_do_not_fit_are_refused(vae, shape):
    with pytest.raises(ValueError, match=r"wanted 1 \+ 8k frames of multiples of 32 pixels"):
        vae.encode(torch.zeros(shape))
