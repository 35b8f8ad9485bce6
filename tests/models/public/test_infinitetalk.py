"""InfiniteTalk against a plain loop over its published names: no reference can be run here, so it is written twice."""

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from models.errors import CheckpointError
from models.public.infinitetalk import (
    INFINITETALK,
    Guidance,
    InfiniteTalk,
    InfiniteTalkConfig,
    guided_velocity,
    load_talk,
    reference_input,
    sample,
)
from models.public.wan import WanConfig

CONFIG = InfiniteTalkConfig(
    wan=WanConfig(
        dim=48, ffn_dim=64, num_layers=2, num_heads=3, in_dim=12, out_dim=4, text_dim=20, freq_dim=32, image_dim=16
    ),
    audio_width=10,
    audio_hidden=6,
)


@pytest.fixture(scope="module")
def published() -> dict[str, torch.Tensor]:
    """Random weights under the published names."""
    with torch.device("meta"):
        shapes = {name: tensor.shape for name, tensor in InfiniteTalk(CONFIG).state_dict().items()}
    generator = torch.Generator().manual_seed(0)
    weights = {}
    for name, shape in shapes.items():
        noise = torch.randn(shape, generator=generator)
        if len(shape) == 1:
            weights[name] = 0.2 * noise + float(name.endswith("weight"))
        else:
            weights[name] = noise / math.sqrt(shape[1:].numel()) if "modulation" not in name else 0.5 * noise
    return weights


@pytest.fixture(scope="module")
def files(published, tmp_path_factory):
    """The base, and what InfiniteTalk adds to it."""
    folder = tmp_path_factory.mktemp("talk")
    added = {name for name in published if "audio_" in name or "norm_x" in name}
    save_file({name: published[name] for name in published.keys() - added}, folder / "base.safetensors")
    save_file({name: published[name] for name in added}, folder / "infinitetalk.safetensors")
    return folder / "base.safetensors", folder / "infinitetalk.safetensors"


@pytest.fixture(scope="module")
def model(files) -> InfiniteTalk:
    model = InfiniteTalk(CONFIG).eval().requires_grad_(False)
    load_talk(model, *files)
    return model


def draw(*shape, seed):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def given():
    """Latents, time step, reference, windows of sound, text, image features of one stream."""
    return {
        "latents": draw(1, 4, 3, 4, 6, seed=1),
        "t": torch.tensor([937.5]),
        "reference": draw(1, 8, 3, 4, 6, seed=2),
        "audio": draw(1, 9, 5, 12, 768, seed=3),
        "text": draw(1, 7, 20, seed=4),
        "image": draw(1, 9, 16, seed=5),
    }


def naive(w, latents, t, reference, audio, text, image):
    """The velocity [1, 4, f, h, w], one head, one frame and one window after the other; published layout throughout."""
    heads, width = 3, 16

    def linear(x, name):
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    def norm(x, eps, name=None):
        y = (x - x.mean(-1, keepdim=True)) / (x.var(-1, keepdim=True, unbiased=False) + eps).sqrt()
        return y if name is None else y * w[f"{name}.weight"] + w[f"{name}.bias"]

    def rms(x, name):
        return x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt() * w[f"{name}.weight"]

    def attend(q, k, v):
        parts = []
        for head in range(heads):
            own = slice(head * width, (head + 1) * width)
            parts.append((q[:, own] @ k[:, own].T / math.sqrt(width)).softmax(-1) @ v[:, own])
        return torch.cat(parts, dim=1)

    video = torch.cat([latents, reference], dim=1)
    patches = F.conv3d(video, w["patch_embedding.weight"], w["patch_embedding.bias"], stride=(1, 2, 2))[0]
    grid = patches.shape[1:]
    places = [(f, y, x) for f in range(grid[0]) for y in range(grid[1]) for x in range(grid[2])]
    x = torch.stack([patches[:, f, y, c] for f, y, c in places])

    def rotate(x):
        """Complex numbers of neighbouring channels, turned by 4 + 2 + 2 frequencies of time, row and column."""
        turned = []
        for row, place in zip(x, places, strict=True):
            pairs = torch.view_as_complex(row.double().reshape(heads, width // 2, 2))
            axes = zip(place, (8, 4, 4), strict=True)
            angles = torch.tensor([p * 1e4 ** (-2 * j / dim) for p, dim in axes for j in range(dim // 2)]).double()
            turned.append(torch.view_as_real(pairs * torch.polar(torch.ones(8).double(), angles)))
        return torch.stack(turned).flatten(1).float()

    angles = t.double() * 1e4 ** (-torch.arange(16).double() / 16)
    e = linear(F.silu(linear(torch.cat([angles.cos(), angles.sin()]).float(), "time_embedding.0")), "time_embedding.2")
    e6 = linear(F.silu(e), "time_projection.1").view(6, 48)
    words = linear(F.gelu(linear(text[0], "text_embedding.0"), approximate="tanh"), "text_embedding.2")
    seen = F.gelu(linear(norm(image[0], 1e-5, "img_emb.proj.0"), "img_emb.proj.1"))
    seen = norm(linear(seen, "img_emb.proj.3"), 1e-5, "img_emb.proj.4")

    sound = []
    for latent in range(grid[0]):
        if latent == 0:
            heard = linear(audio[0, 0].flatten(), "audio_proj.proj1")
        else:
            frames = audio[0, 4 * latent - 3 : 4 * latent + 1]
            slots = [*frames[0, :3], frames[1, 2], frames[2, 2], *frames[3, 2:]]
            heard = linear(torch.stack(slots).flatten(), "audio_proj.proj1_vf")
        heard = linear(F.relu(linear(F.relu(heard), "audio_proj.proj2")), "audio_proj.proj3").view(32, 10)
        sound.append(norm(heard, 1e-5, "audio_proj.norm"))

    for block in ("blocks.0", "blocks.1"):
        m = w[f"{block}.modulation"][0] + e6
        y = norm(x, 1e-6) * (1 + m[1]) + m[0]
        q, k = (rotate(rms(linear(y, f"{block}.self_attn.{n}"), f"{block}.self_attn.norm_{n}")) for n in "qk")
        x = x + linear(attend(q, k, linear(y, f"{block}.self_attn.v")), f"{block}.self_attn.o") * m[2]
        y = norm(x, 1e-6, f"{block}.norm3")
        cross = f"{block}.cross_attn"
        q, k = rms(linear(y, f"{cross}.q"), f"{cross}.norm_q"), rms(linear(words, f"{cross}.k"), f"{cross}.norm_k")
        answer = attend(q, k, linear(words, f"{cross}.v"))
        k = rms(linear(seen, f"{cross}.k_img"), f"{cross}.norm_k_img")
        x = x + linear(answer + attend(q, k, linear(seen, f"{cross}.v_img")), f"{cross}.o")
        y, hear = norm(x, 1e-6, f"{block}.norm_x"), f"{block}.audio_cross_attn"
        q, answers = linear(y, f"{hear}.q_linear"), []
        for latent, rows in enumerate(q.view(grid[0], -1, 48)):
            k, v = linear(sound[latent], f"{hear}.kv_linear").split(48, dim=1)
            answers.append(attend(rows, k, v))
        x = x + linear(torch.cat(answers), f"{hear}.proj")
        y = norm(x, 1e-6) * (1 + m[4]) + m[3]
        x = x + linear(F.gelu(linear(y, f"{block}.ffn.0"), approximate="tanh"), f"{block}.ffn.2") * m[5]

    m = w["head.modulation"][0] + e
    x = linear(norm(x, 1e-6) * (1 + m[1]) + m[0], "head.head")
    out = torch.zeros(1, 4, grid[0], 2 * grid[1], 2 * grid[2])
    for token, (f, y, c) in zip(x, places, strict=True):
        out[0, :, f, 2 * y : 2 * y + 2, 2 * c : 2 * c + 2] = token.view(2, 2, 4).permute(2, 0, 1)
    return out


def velocity(model, given):
    contexts = model.hear(model.look(given["text"], given["image"]), given["audio"])
    return model.velocity(given["reference"], contexts)(given["latents"], given["t"])


def test_velocity_is_that_of_a_plain_loop(model, published, given):
    expected = naive(published, **given)
    assert expected.std() > 0.1
    assert (velocity(model, given) - expected).abs().max() <= 1e-5 * expected.abs().max()


@pytest.mark.parametrize("part", ["reference", "audio", "text", "image", "t"])
def test_every_condition_counts(model, given, part):
    changed = given | {part: given[part].flip(-1) * 0.9}
    assert (velocity(model, given) - velocity(model, changed)).abs().max() > 1e-3


def test_a_latent_frame_hears_its_own_frames_only(model, given):
    """One block: what differs in the tokens of a latent is what was said there."""
    shallow = InfiniteTalk(replace(CONFIG, wan=replace(CONFIG.wan, num_layers=1))).eval().requires_grad_(False)
    shallow.load_state_dict({k: v for k, v in model.state_dict().items() if not k.startswith("blocks.1.")})
    changed = given["audio"].clone()
    changed[:, 5:] += 1  # frames of the last latent
    before, after = velocity(shallow, given), velocity(shallow, given | {"audio": changed})
    assert torch.equal(before[:, :, :2], after[:, :, :2]) and not torch.allclose(before[:, :, 2], after[:, :, 2])


def test_timesteps_are_the_published_ones():
    assert Guidance().timesteps().tolist() == pytest.approx([1000, 937.5, 833.3333, 625, 0])
    undistilled = INFINITETALK.timesteps()
    assert len(undistilled) == 41 and undistilled[0] == 1000 and undistilled[-1] == 0
    assert float(undistilled[-2]) == pytest.approx(1000 * 7 * 0.001 / (1 + 6 * 0.001))


@pytest.mark.parametrize(("text", "audio"), [(1.0, 1.0), (1.0, 2.0), (5.0, 4.0)])
def test_guidance_is_nested(model, given, text, audio):
    seen, null = (model.look(given["text"] * scale, given["image"]) for scale in (1, 0))
    silence = torch.zeros_like(given["audio"])

    def plain(context, sound):
        return model.velocity(given["reference"], model.hear(context, sound))(given["latents"], given["t"])

    both, wordless, nothing = plain(seen, given["audio"]), plain(null, given["audio"]), plain(null, silence)
    expected = both if audio == 1 else plain(seen, silence) + audio * (both - plain(seen, silence))
    if text != 1:
        expected = nothing + text * (both - wordless) + audio * (wordless - nothing)
    guidance = Guidance(text=text, audio=audio)
    made = guided_velocity(model, given["reference"], given["audio"], seen, null, guidance)
    assert (made(given["latents"], given["t"]) - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_text_guidance_needs_a_negative_prompt(model, given):
    seen = model.look(given["text"], given["image"])
    with pytest.raises(ValueError, match="negative prompt"):
        guided_velocity(model, given["reference"], given["audio"], seen, None, INFINITETALK)


@pytest.mark.parametrize("guidance", [Guidance(), Guidance(steps=3, is_distilled=False)])
def test_loop_walks_down_the_time_steps_with_the_prefix_in_place(guidance):
    prefix, seen = draw(1, 4, 1, 2, 2, seed=6), []

    def towards_zero(latents, t):
        assert torch.equal(latents[:, :, :1], prefix)
        seen.append(float(t))
        return latents / (t / 1000)  # noise minus data where the data are zero

    made = sample(towards_zero, lambda index: draw(1, 4, 3, 2, 2, seed=10 + index), prefix, guidance)
    assert seen == guidance.timesteps()[:-1].tolist()
    assert torch.equal(made[:, :, :1], prefix)
    assert made[:, :, 1:].abs().max() <= 1e-5


def test_reference_input_is_the_picture_before_grey():
    class Coder:
        def encode(self, video):
            return video[:, :, ::4, ::8, ::8]

        def decode(self, latents):
            raise NotImplementedError

    made = reference_input(torch.full((1, 3, 1, 16, 24), 0.5), Coder(), 9)
    assert made.shape == (1, 7, 3, 2, 3)
    assert torch.equal(made[:, :, 0].unique(), torch.tensor([0.5, 1.0]))
    assert not made[:, :, 1:].any()


def test_published_names_and_parameters():
    with torch.device("meta"):
        tensors = InfiniteTalk(InfiniteTalkConfig()).state_dict()
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    assert shapes["blocks.39.audio_cross_attn.kv_linear.weight"] == (10240, 768)
    assert shapes["blocks.0.norm_x.bias"] == (5120,)
    assert shapes["audio_proj.proj1_vf.weight"] == (512, 73728)
    assert shapes["audio_proj.proj3.weight"] == (24576, 512) and shapes["audio_proj.norm.weight"] == (768,)
    assert len(shapes) == 1303 + 40 * 8 + 10


def test_flashtalk_loads_from_one_file(model, published, tmp_path):
    save_file(published, tmp_path / "flashtalk.safetensors")
    whole = InfiniteTalk(CONFIG)
    load_talk(whole, tmp_path / "flashtalk.safetensors")
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), model.parameters(), strict=True))


def test_a_base_alone_and_a_base_twice_are_refused(files):
    with pytest.raises(CheckpointError, match="lacks 26 tensors, the first audio_proj.norm.bias"):
        load_talk(InfiniteTalk(CONFIG), files[0])
    with pytest.raises(CheckpointError, match="again"):
        load_talk(InfiniteTalk(CONFIG), files[0], files[0])
