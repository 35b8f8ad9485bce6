import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from models.configs import TinyDecoderConfig
from models.public.taehv import TAEHV
from models.tiny_encoder import TinyEncoder

TINY = TinyDecoderConfig(widths=(16, 8, 8, 8))


@pytest.fixture(scope="module")
def model() -> TAEHV:
    torch.manual_seed(0)
    model = TAEHV(TINY, encoder_width=8).eval().requires_grad_(False)
    for parameter in model.parameters():
        if parameter.ndim == 4:
            torch.nn.init.kaiming_normal_(parameter, a=1)
    model.tiny_decoder.decoder[-1].weight.mul_(0.05)
    model.tiny_decoder.decoder[-1].bias.fill_(0.5)
    return model


@pytest.fixture
def video() -> torch.Tensor:
    return torch.rand(2, 3, 12, 16, 24, generator=torch.Generator().manual_seed(1)) * 2 - 1


def encode_frame_by_frame(weights, frames):
    """Frames [T, 3, H, W] in 0 … 1 of one stream → latents [C, T/4, H/8, W/8], one frame after the other."""
    before = {}

    def convolve(x, name, **options):
        return F.conv2d(x, weights[f"encoder.{name}.weight"], weights.get(f"encoder.{name}.bias"), **options)

    def remember(x, place):
        y = torch.cat([x, before.get(place, torch.zeros_like(x))])
        before[place] = x
        for layer in (0, 2, 4):
            y = convolve(y, f"{place}.conv.{layer}", padding=1)
            y = y.relu() if layer < 4 else y
        return (y + x).relu()

    level = [convolve(frame, "0", padding=1).relu() for frame in frames]
    for place, stride in ((2, 2), (7, 2), (12, 1)):
        groups = [torch.cat(level[first : first + stride]) for first in range(0, len(level), stride)]
        level = []
        for group in groups:
            x = convolve(convolve(group, f"{place}.conv"), str(place + 1), stride=2, padding=1)
            for block in range(place + 2, place + 5):
                x = remember(x, block)
            level.append(x)
    return torch.stack([convolve(x, "17", padding=1) for x in level], dim=1)


def test_latents_are_those_of_a_loop_over_frames(model, video):
    latents = model.encode(video)
    assert latents.shape == (2, 16, 3, 2, 3) and latents.std() > 0.05
    for row in range(2):
        frames = (video[row].transpose(0, 1) + 1) / 2
        expected = encode_frame_by_frame(model.tiny_encoder.state_dict(), frames)
        assert (latents[row] - expected).abs().max() <= 1e-5 * expected.abs().max()


@pytest.mark.parametrize("sizes", [(4, 8), (4, 4, 4)])
def test_chunked_encode_matches_whole(model, video, sizes):
    cache, parts = None, []
    for part in video.split(sizes, dim=2):
        latents, cache = model.encode_chunk(part, cache)
        parts.append(latents)
    whole = model.encode(video)
    assert (torch.cat(parts, dim=2) - whole).abs().max() <= 1e-5 * whole.abs().max()


def test_the_last_frame_fills_up_a_group(model, video):
    filled = torch.cat([video[:, :, :9], video[:, :, 8:9].expand(-1, -1, 3, -1, -1)], dim=2)
    assert torch.equal(model.encode(video[:, :, :9]), model.encode(filled))


def test_later_frames_cannot_change_earlier_latents(model, video):
    changed = video.clone()
    changed[:, :, 8:] = 0
    before, after = model.encode(video), model.encode(changed)
    assert torch.equal(before[:, :, :2], after[:, :, :2]) and not torch.equal(before[:, :, 2:], after[:, :, 2:])


def test_decoded_video_is_signed_and_streams(model):
    latents = torch.randn(1, 16, 3, 2, 3, generator=torch.Generator().manual_seed(2))
    whole = model.decode(latents)
    assert whole.shape == (1, 3, 9, 16, 24) and whole.min() < 0 and whole.abs().max() <= 1
    first, cache = model.decode_chunk(latents[:, :, :1], None)
    rest, _ = model.decode_chunk(latents[:, :, 1:], cache)
    assert (torch.cat([first, rest], dim=2) - whole).abs().max() <= 1e-5


@pytest.mark.parametrize("shape", [(1, 3, 3, 16, 16), (1, 3, 0, 16, 16), (1, 3, 4, 16, 12)])
def test_groups_that_do_not_fit_are_refused(model, shape):
    with pytest.raises(ValueError, match="groups of 4 frames of multiples of 8 pixels"):
        model.encode_chunk(torch.zeros(shape), None)


def test_published_names_and_parameters():
    with torch.device("meta"):
        encoder = TinyEncoder().state_dict()
        model = TAEHV()
    assert len(encoder) == 64
    assert {name: tuple(encoder[name].shape) for name in ("encoder.2.conv.weight", "encoder.12.conv.weight")} == {
        "encoder.2.conv.weight": (64, 128, 1, 1),
        "encoder.12.conv.weight": (64, 64, 1, 1),
    }
    assert encoder["encoder.17.weight"].shape == (16, 64, 3, 3)
    assert sum(parameter.numel() for parameter in model.parameters()) == 11_315_539


def test_both_halves_load_from_the_published_file(model, tmp_path):
    path = tmp_path / "taew2_1.safetensors"
    save_file(model.tiny_encoder.state_dict() | model.tiny_decoder.state_dict(), path)
    loaded = TAEHV(TINY, encoder_width=8)
    loaded.load(path)
    assert all(torch.equal(a, b) for a, b in zip(loaded.parameters(), model.parameters(), strict=True))
