from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch.utils.flop_counter import FlopCounterMode

from models.checkpoints import load_weights
from models.configs import TinyDecoderConfig
from models.errors import CheckpointError
from models.pipeline import AvatarPipeline
from models.presets import tiny
from models.tiny_decoder import TinyDecoder

TINY = TinyDecoderConfig(widths=(16, 8, 8, 8))
# Of taew2_1.safetensors, as published.
PUBLISHED = {
    "decoder.1.weight": (256, 16, 3, 3),
    "decoder.1.bias": (256,),
    "decoder.3.conv.0.weight": (256, 512, 3, 3),
    "decoder.5.conv.4.bias": (256,),
    "decoder.7.conv.weight": (256, 256, 1, 1),
    "decoder.8.weight": (128, 256, 3, 3),
    "decoder.9.conv.0.weight": (128, 256, 3, 3),
    "decoder.11.conv.2.weight": (128, 128, 3, 3),
    "decoder.13.conv.weight": (256, 128, 1, 1),
    "decoder.14.weight": (64, 128, 3, 3),
    "decoder.17.conv.4.weight": (64, 64, 3, 3),
    "decoder.19.conv.weight": (128, 64, 1, 1),
    "decoder.20.weight": (64, 64, 3, 3),
    "decoder.22.weight": (3, 64, 3, 3),
    "decoder.22.bias": (3,),
}


@pytest.fixture(scope="module")
def decoder() -> TinyDecoder:
    """Random weights under which all layers matter and few pixels leave 0 … 1."""
    torch.manual_seed(0)
    decoder = TinyDecoder(TINY).eval().requires_grad_(False)
    for name, parameter in decoder.named_parameters():
        if parameter.ndim == 4 and ".conv.4." not in name:
            torch.nn.init.kaiming_normal_(parameter)
    decoder.decoder[-1].weight.mul_(0.05)
    decoder.decoder[-1].bias.fill_(0.5)
    return decoder


@pytest.fixture
def latents() -> torch.Tensor:
    return torch.randn(2, 16, 5, 3, 4, generator=torch.Generator().manual_seed(1))


def decode_frame_by_frame(weights: dict[str, torch.Tensor], latents: torch.Tensor) -> torch.Tensor:
    """Latents [C, T, h, w] of one stream → frames [4T - 3, 3, 8h, 8w], one frame after the other."""
    before, frames = {}, []

    def convolve(x, name):
        weight = weights[f"decoder.{name}.weight"]
        return F.conv2d(x, weight, weights.get(f"decoder.{name}.bias"), padding=weight.shape[-1] // 2)

    def stage(x, place, count):
        for block in range(place, place + 3):
            y = torch.cat([x, before.get(block, torch.zeros_like(x))])
            before[block] = x
            y = convolve(y, f"{block}.conv.0").relu()
            y = convolve(y, f"{block}.conv.2").relu()
            x = (convolve(y, f"{block}.conv.4") + x).relu()
        large = x.repeat_interleave(2, dim=1).repeat_interleave(2, dim=2)
        return [convolve(frame, str(place + 5)) for frame in convolve(large, f"{place + 4}.conv").chunk(count)]

    for latent in latents.unbind(1):
        for eighth in stage(convolve(3 * (latent / 3).tanh(), "1").relu(), 3, 1):
            for quarter in stage(eighth, 9, 2):
                for half in stage(quarter, 15, 2):
                    frames.append(convolve(half.relu(), "22").clamp(0, 1))
    return torch.stack(frames[3:])


def test_names_and_shapes_are_those_of_the_published_weights():
    with torch.device("meta"):
        tensors = TinyDecoder(TinyDecoderConfig()).state_dict()
    assert {name: tuple(tensors[name].shape) for name in PUBLISHED} == PUBLISHED
    assert len(tensors) == 64
    assert sum(tensor.numel() for tensor in tensors.values()) == 9_844_611


def test_frames_are_those_of_a_loop_over_frames(decoder, latents):
    frames = decoder.decode(latents)
    assert frames.shape == (2, 17, 3, 24, 32)
    assert frames.std() > 0.05 and ((frames > 0) & (frames < 1)).float().mean() > 0.9
    for row in range(2):
        assert (frames[row] - decode_frame_by_frame(decoder.state_dict(), latents[row])).abs().max() <= 1e-5


@pytest.mark.parametrize("sizes", [(1, 4), (2, 1, 2), (1,) * 5, (3, 2)])
def test_chunked_decode_matches_whole(decoder, latents, sizes):
    whole, whole_cache = decoder.decode_chunk(latents, None)
    cache, parts = None, []
    for part in latents.split(sizes, dim=2):
        frames, cache = decoder.decode_chunk(part, cache)
        parts.append(frames)
    assert (torch.cat(parts, dim=1) - whole).abs().max() <= 1e-5
    for level, whole_level in zip(cache, whole_cache, strict=True):
        assert (level - whole_level).abs().max() <= 1e-5


def test_later_latents_cannot_change_earlier_frames(decoder, latents):
    changed = latents.clone()
    changed[:, :, 3:] += 1
    before, after = decoder.decode(latents), decoder.decode(changed)
    assert torch.equal(before[:, :9], after[:, :9])
    assert not torch.allclose(before[:, 9:], after[:, 9:])


def test_decoder_remembers_the_latent_before(decoder, latents):
    changed = latents.clone()
    changed[:, :, 1] += 1
    assert not torch.allclose(decoder.decode(latents)[:, 5:9], decoder.decode(changed)[:, 5:9])


def test_rows_of_a_batch_are_independent(decoder, latents):
    changed = latents.clone()
    changed[1] += 1
    cache = decoder.decode_chunk(latents[:, :, :2], None)[1]
    frames, carried = decoder.decode_chunk(latents[:, :, 2:], cache)
    alone, alone_carried = decoder.decode_chunk(latents[:1, :, 2:], tuple(level[:1] for level in cache))
    assert (frames[:1] - alone).abs().max() <= 1e-5
    assert all((level[:1] - row).abs().max() <= 1e-5 for level, row in zip(carried, alone_carried, strict=True))
    assert torch.equal(decoder.decode(changed)[0], decoder.decode(latents)[0])


def test_half_rate_gives_every_second_frame_twice(decoder, latents):
    _, cache = decoder.decode_chunk(latents[:, :, :2], None)
    full, full_cache = decoder.decode_chunk(latents[:, :, 2:], cache)
    half, half_cache = decoder.decode_chunk(latents[:, :, 2:], cache, is_half_rate=True)
    assert half.shape == full.shape
    assert torch.equal(half[:, ::2], half[:, 1::2])
    assert (half[:, ::2] - full[:, ::2]).abs().max() <= 1e-5
    assert all(torch.equal(*levels) for levels in zip(half_cache, full_cache, strict=True))


def test_half_rate_at_the_start_has_one_frame_of_the_first_latent(decoder, latents):
    full, full_cache = decoder.decode_chunk(latents, None)
    half, half_cache = decoder.decode_chunk(latents, None, is_half_rate=True)
    assert half.shape == full.shape
    assert (half[:, 1::2] - full[:, 1::2]).abs().max() <= 1e-5
    assert all(torch.equal(*levels) for levels in zip(half_cache, full_cache, strict=True))


def test_inputs_are_left_alone(decoder, latents):
    _, cache = decoder.decode_chunk(latents, None)
    copies = latents.clone(), tuple(level.clone() for level in cache)
    decoder.decode_chunk(latents, cache)
    assert torch.equal(latents, copies[0])
    assert all(torch.equal(*levels) for levels in zip(cache, copies[1], strict=True))


@pytest.mark.parametrize("count", [1, 3])
def test_features_stay_channels_last(decoder, latents, count):
    _, cache = decoder.decode_chunk(latents[:, :, :count], None)
    assert len(cache) == 9
    assert all(level.is_contiguous(memory_format=torch.channels_last) for level in cache)


def test_frames_and_cache_have_the_dtype_of_the_weights(decoder, latents):
    exact = decoder.decode(latents)
    rounded = TinyDecoder(TINY).requires_grad_(False)
    rounded.load_state_dict(decoder.state_dict())
    frames, cache = rounded.to(torch.bfloat16).decode_chunk(latents, None)
    assert {frames.dtype, *(level.dtype for level in cache)} == {torch.bfloat16}
    assert (frames - exact).abs().mean() < 0.01


def test_full_size_reads_nothing_on_the_host_and_costs_what_it_says():
    """On the meta device a value read is an error; so is it while a CUDA graph is captured."""
    with torch.device("meta"):
        decoder, latents = TinyDecoder(TinyDecoderConfig()), torch.empty(1, 16, 1, 88, 160)
        cache = None
    flops = []
    for is_half_rate in (False, True):
        with torch.inference_mode(), FlopCounterMode(display=False) as counter:
            frames, cache = decoder.decode_chunk(latents, cache, is_half_rate)
        flops.append(counter.get_total_flops())
    assert frames.shape == (1, 4, 3, 704, 1280)
    assert [tuple(level.shape) for level in cache[::3]] == [(1, 256, 88, 160), (1, 128, 176, 320), (1, 64, 352, 640)]
    assert flops == [1_189_074_698_240, 1_046_279_618_560]


@pytest.mark.parametrize("widths", [(8, 8, 8), (8, 8, 8, 0)])
def test_widths_that_do_not_fit_are_refused(widths):
    with pytest.raises(ValueError, match="widths"):
        TinyDecoderConfig(widths=widths)


@pytest.fixture
def published(decoder) -> dict[str, torch.Tensor]:
    """What a TAEHV file holds: half precision, and an encoder beside the decoder."""
    tensors = {name: tensor.half() for name, tensor in decoder.state_dict().items()}
    return tensors | {"encoder.0.weight": torch.zeros(64, 3, 3, 3).half()}


def test_published_weights_load_by_name(tmp_path, published):
    save_file(published, tmp_path / "taew2_1.safetensors")
    loaded = TinyDecoder(TINY)
    load_weights(tmp_path / "taew2_1.safetensors", loaded, prefix="decoder.")
    for name, tensor in loaded.state_dict().items():
        assert torch.equal(tensor, published[name].float()), name


@pytest.mark.parametrize(
    ("name", "tensor", "message"),
    [
        ("decoder.13.conv.weight", None, "lacks 1 tensors, the first decoder.13.conv.weight"),
        ("decoder.6.weight", torch.zeros(1), "too many, the first decoder.6.weight"),
        ("decoder.22.bias", torch.zeros(12), r"decoder.22.bias has shape \[12\], the preset wants \[3\]"),
        ("decoder.22.bias", torch.full((3,), torch.nan), "decoder.22.bias holds values that are not finite"),
    ],
)
def test_weights_that_do_not_fit_are_one_clear_error(tmp_path, published, name, tensor, message):
    changed = {key: value for key, value in (published | {name: tensor}).items() if value is not None}
    save_file(changed, tmp_path / "other.safetensors")
    with pytest.raises(CheckpointError, match=message):
        load_weights(tmp_path / "other.safetensors", TinyDecoder(TINY), prefix="decoder.")


def test_pickles_and_missing_files_are_refused(tmp_path, published):
    torch.save(published, tmp_path / "taew2_1.pth")
    for name in ("taew2_1.pth", "absent.safetensors"):
        with pytest.raises(CheckpointError, match=f"{name} is not a readable safetensors file"):
            load_weights(tmp_path / name, TinyDecoder(TINY), prefix="decoder.")


def test_a_preset_with_a_tiny_decoder_makes_its_frames(reference, sound):
    torch.manual_seed(0)
    pipeline = AvatarPipeline(replace(tiny(), tiny_decoder=TINY))
    with torch.no_grad():
        pipeline.tiny_decoder.decoder[-1].bias.fill_(0.5)
    first, state, _ = pipeline.step(sound[:2560], pipeline.start(reference))
    frames, state, _ = pipeline.step(sound[2560:5120], state)
    assert first.shape == frames.shape == (4, 3, 96, 96)
    assert len(state.lr_cache) == len(state.hr_cache) == 9
    decoded, _ = pipeline.tiny_decoder.decode_chunk(state.hr_motion, None)
    assert (frames[3] - decoded[0, 0]).abs().mean() < 0.1 and (frames - 0.5).abs().max() < 0.5


def test_a_decoder_of_other_latents_is_refused():
    with pytest.raises(ValueError, match="16 channels"):
        replace(tiny(), tiny_decoder=TinyDecoderConfig(latent_channels=48))
