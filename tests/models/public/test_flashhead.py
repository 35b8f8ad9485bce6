import pytest
import torch

from models.public.audio_tokens import audio_groups
from models.public.flashhead import FlashHead, FlashHeadConfig, half_split, published_shapes, rope_angles

TINY = FlashHeadConfig(
    dim=48,
    ffn_dim=64,
    in_dim=8,
    out_dim=4,
    text_dim=16,
    freq_dim=16,
    num_heads=2,
    num_layers=2,
    patch_size=(1, 2, 2),
    vae_stride=(4, 8, 8),
)


def tiny_model(seed=0):
    torch.manual_seed(seed)
    model = FlashHead(TINY).eval().requires_grad_(False)
    for block in model.blocks:
        torch.nn.init.normal_(block.modulation)
    torch.nn.init.normal_(model.head.modulation)
    return model


def given(streams, seed=1):
    generator = torch.Generator().manual_seed(seed)
    latents, reference = (torch.randn(streams, 4, 3, 4, 6, generator=generator) for _ in range(2))
    return latents, reference, torch.randn(streams, 9, 5, 12, 768, generator=generator)


def test_streams_of_a_batch_do_not_touch_each_other():
    model, (latents, reference, audio) = tiny_model(), given(2)
    times = torch.tensor([1000.0, 625.0])
    together = model(latents, times, reference, model.hear(audio))
    for row in range(2):
        one = slice(row, row + 1)
        alone = model(latents[one], times[one], reference[one], model.hear(audio[one]))
        torch.testing.assert_close(together[one], alone)


def test_a_latent_frame_hears_its_own_frames_only():
    audio = torch.arange(9.0)[None, :, None].expand(1, 9, 5) * 10 + torch.arange(5.0)
    first, later = audio_groups(audio, 4)
    assert first[0].tolist() == [[0, 1, 2, 3, 4]]
    assert later[0].tolist() == [[10, 11, 12, 22, 32, 42, 43, 44], [50, 51, 52, 62, 72, 82, 83, 84]]


@pytest.mark.parametrize("frames", [1, 8, 10])
def test_frames_that_make_no_latents_are_refused(frames):
    with pytest.raises(ValueError, match=str(frames)):
        audio_groups(torch.zeros(1, frames, 5), 4)


def test_half_split_moves_the_first_of_each_pair_to_the_first_half():
    rows = torch.arange(12.0)[:, None]
    assert half_split(rows, heads=2).flatten().tolist() == [0, 2, 4, 1, 3, 5, 6, 8, 10, 7, 9, 11]


def test_rope_tells_time_rows_and_columns_apart():
    cos, sin = rope_angles((2, 3, 4), 128, torch.device("cpu"))
    assert cos.shape == sin.shape == (24, 64)
    time, rows, columns = cos.view(2, 3, 4, 64).split([22, 21, 21], dim=-1)
    assert torch.equal(time[:, 0, 0], time[:, 2, 3]) and not torch.equal(time[0], time[1])
    assert torch.equal(rows[0, :, 0], rows[1, :, 3]) and not torch.equal(rows[:, 0], rows[:, 1])
    assert torch.equal(columns[0, 0], columns[1, 2]) and not torch.equal(columns[:, :, 0], columns[:, :, 1])


def test_bf16_rounds_the_time_step():
    model, (latents, reference, audio) = tiny_model().to(torch.bfloat16), given(1)
    latents, reference, audio = (x.to(torch.bfloat16) for x in (latents, reference, audio))
    heard = model.hear(audio)
    seen = [model(latents, torch.tensor([t]), reference, heard) for t in (937.5, 936.0, 940.0)]
    assert torch.equal(seen[0], seen[1]) and not torch.equal(seen[0], seen[2])


def test_published_sizes_are_those_of_the_files():
    pro = FlashHeadConfig(1536, 8960, 32, 16, 4096, 256, 12, 30, (1, 2, 2), (4, 8, 8))
    lite = FlashHeadConfig(1536, 8960, 256, 128, 4096, 256, 12, 30, (1, 1, 1), (8, 32, 32))
    for config, elements in ((pro, 1_507_694_912), (lite, 1_526_864_256)):
        shapes = published_shapes(config)
        assert len(shapes) == 843
        assert sum(torch.Size(shape).numel() for shape in shapes.values()) == elements
