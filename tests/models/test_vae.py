import pytest
import torch

from models.configs import VAEConfig
from models.vae import CausalVAE
from tests.models.conftest import fill_zero_weights


@pytest.fixture(scope="module")
def vae() -> CausalVAE:
    torch.manual_seed(0)
    vae = CausalVAE(VAEConfig(encoder_width=16, trunk_width=16, frame_width=8, detail_width=8)).eval()
    fill_zero_weights(vae)
    vae.latent_mean.normal_()
    vae.latent_std.uniform_(0.5, 2)
    return vae.requires_grad_(False)


@pytest.mark.parametrize("sizes", [(1, 6), (2, 1, 4), (1,) * 7, (3, 3, 1)])
def test_chunked_decode_matches_whole(vae, sizes):
    latents = torch.randn(2, 16, 7, 5, 6)
    whole = vae.decode(latents)
    cache, parts = None, []
    for part in latents.split(sizes, dim=2):
        frames, cache = vae.decode_chunk(part, cache)
        parts.append(frames)
    assert whole.shape == (2, 25, 3, 40, 48)
    assert (torch.cat(parts, dim=1) - whole).abs().max() <= 1e-5


def test_later_latents_cannot_change_earlier_frames(vae):
    latents = torch.randn(1, 16, 5, 4, 4)
    changed = latents.clone()
    changed[:, :, 3:] += 1
    before, after = vae.decode(latents), vae.decode(changed)
    assert torch.equal(before[:, :9], after[:, :9])
    assert not torch.allclose(before[:, 9:], after[:, 9:])


def test_chunked_encode_matches_whole(vae):
    frames = torch.rand(1, 13, 3, 16, 24)
    whole = vae.encode(frames)
    parts = torch.cat(
        [vae.encode(frames[:, :1]), vae.encode_groups(frames[:, 1:5]), vae.encode_groups(frames[:, 5:])], 2
    )
    assert (parts - whole).abs().max() <= 1e-5


def test_decoder_remembers_the_latent_before(vae):
    latents = torch.randn(1, 16, 3, 4, 4)
    changed = latents.clone()
    changed[:, :, 1] += 1
    assert not torch.allclose(vae.decode(latents)[:, 5:], vae.decode(changed)[:, 5:])


def test_linear_start_is_the_projection_on_its_basis():
    vae = CausalVAE(VAEConfig(encoder_width=16, trunk_width=16, frame_width=8, detail_width=8)).eval()
    basis = torch.linalg.qr(torch.randn(768, 16)).Q
    with torch.no_grad():
        for block in [*vae.encoder.blocks, *vae.decoder.trunk, *vae.decoder.detail, vae.decoder.frame_block]:
            block.second.weight.zero_()
            block.second.bias.zero_()
    vae.start_linear(torch.zeros(768), basis.T.contiguous(), basis)
    patch = (basis @ torch.randn(16)).view(4, 3, 8, 8) * 0.1
    frames = (patch * 0.5 + 0.5).repeat(1, 1, 2, 2)[None]
    with torch.no_grad():
        output = vae.decode_chunk(vae.encode_groups(frames), tuple(torch.zeros(1, 16, 2, 2) for _ in range(3)))[0]
    assert (output - frames).abs().max() < 1e-5


@pytest.mark.parametrize("shape", [(1, 4, 3, 16, 16), (1, 5, 3, 12, 16)])
def test_frames_that_do_not_fit_are_refused(vae, shape):
    with pytest.raises(ValueError):
        vae.encode(torch.rand(shape))
