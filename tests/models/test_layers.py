import pytest
import torch
import torch.nn.functional as F
from einops import rearrange

from kernels.qk_norm_rope import qk_norm_rope
from models.configs import TransformerConfig
from models.layers import (
    GELU,
    Block,
    Conditions,
    LatentStem,
    RMSNorm,
    SelfAttention,
    rope_3d,
    select_stream,
    unpatchify,
)
from models.presets import tiny
from models.refiner import PGRefiner
from tests.models.conftest import fill_zero_weights


def patchify(latents: torch.Tensor) -> torch.Tensor:
    return rearrange(latents, "b c t (y p) (x q) -> b t (y x) (c p q)", p=2, q=2)


def test_patches_come_back():
    latents = torch.randn(2, 16, 3, 6, 8)
    assert torch.equal(unpatchify(patchify(latents), 6, 8), latents)


def test_tokens_are_projected_patches_of_features_and_latents():
    torch.manual_seed(0)
    stem, latents = LatentStem(8, 4, 12), torch.randn(2, 8, 3, 6, 4)
    tokens, features = stem(latents)
    assert features.shape == (2, 4, 3, 6, 4)
    assert torch.allclose(tokens, stem.project(patchify(torch.cat([features, latents], dim=1))), atol=1e-5)
    assert torch.allclose(stem(latents[1:, :, 2:])[0], tokens[1:, 2:], atol=1e-5)  # a latent sees itself alone


def plain_attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    return (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).softmax(-1) @ v


def plain_norm(norm: RMSNorm, x: torch.Tensor) -> torch.Tensor:
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + norm.eps) * norm.gain


def plain_self_attention(layer: SelfAttention, x: torch.Tensor, rope, prefix: int) -> torch.Tensor:
    q, k, v = rearrange(layer.qkv(x), "b t s (three n d) -> three b n (t s) d", three=3, n=layer.config.heads)

    def rotated(x: torch.Tensor) -> torch.Tensor:
        pairs = torch.complex(*x.chunk(2, -1)) * torch.complex(*rope)
        return torch.cat([pairs.real, pairs.imag], -1)

    q, k = rotated(plain_norm(layer.q_norm, q)), rotated(plain_norm(layer.k_norm, k))
    first = prefix * x.shape[2] if layer.config.prefix_causal else 0
    y = plain_attention(q, k, v)
    y[:, :, :first] = plain_attention(q[:, :, :first], k[:, :, :first], v[:, :, :first])
    return layer.out(rearrange(y, "b n (t s) d -> b t s (n d)", t=x.shape[1]))


def plain_cross_attention(layer, x: torch.Tensor, conditions: Conditions) -> torch.Tensor:
    """Eq. 4, token by token."""
    q = plain_norm(layer.q_norm, layer.q(layer.norm(x)).unflatten(-1, (layer.heads, -1)))  # [B, T, S, N, d]
    text_k, text_v = layer.text_kv(conditions.text).unflatten(-1, (2, layer.heads, -1)).unbind(2)
    text_k = plain_norm(layer.text_k_norm, text_k)
    heard = select_stream(conditions.audio, conditions.stream_index)
    audio_k, audio_v = layer.audio_kv(heard).unflatten(-1, (2, layer.heads, -1)).unbind(4)  # [B, T, S or 1, K, N, d]
    audio_k = plain_norm(layer.audio_k_norm, audio_k)
    y = torch.zeros_like(q)
    for b, t, s, n in torch.cartesian_prod(*(torch.arange(size) for size in q.shape[:4])).tolist():
        place = s if audio_k.shape[2] > 1 else 0
        for k, v in ((text_k[b], text_v[b]), (audio_k[b, t, place], audio_v[b, t, place])):
            y[b, t, s, n] += plain_attention(q[b, t, s, n][None], k[:, n], v[:, n])[0]
    return layer.out(y.flatten(3))


def plain_block(block: Block, x: torch.Tensor, modulation: torch.Tensor, rope, prefix: int, conditions) -> torch.Tensor:
    """The block as its docstring says it, without any of the kernels."""
    shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = (modulation + block.scale_shift_table).unbind(-2)
    y = F.layer_norm(x, x.shape[-1:]) * (1 + scale_a) + shift_a
    x = x + plain_self_attention(block.attention, y, rope, prefix) * gate_a
    if block.cross is not None:
        x = x + plain_cross_attention(block.cross, x, conditions)
    y = F.layer_norm(x, x.shape[-1:]) * (1 + scale_m) + shift_m
    return x + block.mlp[2](F.gelu(block.mlp[0](y), approximate="tanh")) * gate_m


def block_inputs(audio_width: int = 0, streams: int = 1, prefix_causal: bool = False):
    torch.manual_seed(0)
    block = Block(TransformerConfig(32, 1, 2, prefix_causal=prefix_causal), 0, 8 if audio_width else 0, audio_width)
    fill_zero_weights(block)
    index = torch.arange(12).remainder(streams).expand(2, -1) if streams > 1 else None
    conditions = Conditions(torch.randn(2, 3, 8), torch.randn(2, streams, 4, 5, audio_width or 1), index)
    x, modulation = torch.randn(2, 4, 12, 32), 0.3 * torch.randn(2, 4, 12 if streams > 1 else 1, 6, 32)
    return block, (x, modulation, rope_3d((4, 3, 4), 16, torch.device("cpu")), (4, 3, 4), 2, conditions)


@pytest.mark.parametrize("is_training", [False, True])
@pytest.mark.parametrize(
    "options", [{}, {"prefix_causal": True}, {"audio_width": 12}, {"audio_width": 12, "streams": 2}], ids=str
)
def test_block_is_what_it_says(options, is_training):
    block, (x, modulation, rope, grid, prefix, conditions) = block_inputs(**options)
    with torch.set_grad_enabled(is_training):
        found, _ = block(x, modulation, rope, grid, prefix, conditions)
    with torch.no_grad():
        expected = plain_block(block, x, modulation, rope, prefix, conditions)
    assert torch.allclose(found, expected, atol=1e-5, rtol=1e-5)


def test_gradients_of_a_block_reach_its_input_and_every_weight():
    block, (x, modulation, *rest) = block_inputs(audio_width=12, streams=2)
    x.requires_grad_(), modulation.requires_grad_()
    block(x, modulation, *rest)[0].square().sum().backward()
    found = [x.grad, modulation.grad, *(parameter.grad for parameter in block.parameters())]
    assert all(gradient is not None and gradient.any() for gradient in found)
    block.double(), x.detach_()
    step = 1e-6 * torch.randn_like(x, dtype=torch.float64)
    arguments = modulation.detach().double(), tuple(part.double() for part in rest[0]), *rest[1:3]
    conditions = Conditions(rest[3].text.double(), rest[3].audio.double(), rest[3].stream_index)
    with torch.no_grad():
        one, two = (
            plain_block(block, x.double() + sign * step, arguments[0], arguments[1], 2, conditions).square().sum()
            for sign in (-0.5, 0.5)
        )
    assert float(two - one) == pytest.approx(float((found[0].double() * step).sum()), rel=1e-3)


def test_quick_gelu_is_the_slow_one_within_a_rounding():
    x = torch.linspace(-6, 6, 4001).bfloat16()
    slow = F.gelu(x.float(), approximate="tanh")
    with torch.no_grad():
        assert (GELU()(x).float() - slow).abs().max() < 5e-4 + 6 * 2**-9
        assert torch.equal(GELU()(x.float()), slow)
    assert torch.equal(GELU()(x.float()), slow)


def test_rope_sees_distances_only():
    q, k, gain = torch.randn(1, 1, 1, 32), torch.randn(1, 1, 1, 32), torch.ones(32)
    cos, sin = rope_3d((3, 6, 6), 32, torch.device("cpu"))

    def rotated(x: torch.Tensor, i: int) -> torch.Tensor:
        return qk_norm_rope(x, x, gain, gain, (cos[i : i + 1], sin[i : i + 1]))[0]

    def score(i: int, j: int) -> torch.Tensor:
        return (rotated(q, i) * rotated(k, j)).sum()

    here, there = score(0, 7), score(36 + 2 * 6 + 1, 36 + 3 * 6 + 2)
    assert torch.allclose(here, there, atol=1e-5)
    assert not torch.allclose(here, score(0, 8), atol=1e-4)


def test_a_window_as_large_as_the_picture_is_all_of_it():
    torch.manual_seed(0)
    windowed = SelfAttention(TransformerConfig(32, 1, 2, attention_window=4), shifted=False)
    whole = SelfAttention(TransformerConfig(32, 1, 2), shifted=False)
    whole.load_state_dict(windowed.state_dict())
    x, rope = torch.randn(1, 2, 16, 32), rope_3d((2, 4, 4), 16, torch.device("cpu"))
    assert torch.allclose(windowed(x, rope, (2, 4, 4), 0)[0], whole(x, rope, (2, 4, 4), 0)[0], atol=1e-5)


def test_windows_keep_tokens_in_their_places():
    torch.manual_seed(0)
    for shifted in (False, True):
        attention = SelfAttention(TransformerConfig(32, 1, 2, attention_window=2), shifted=shifted)
        x, rope = torch.randn(1, 2, 16, 32), rope_3d((2, 4, 4), 16, torch.device("cpu"))
        changed = x.clone()
        changed[:, :, 0] += 1  # the corner token, in both frames
        after, before = (attention(tokens, rope, (2, 4, 4), 0)[0] for tokens in (changed, x))
        difference = (after - before).abs().amax((0, 1, 3))
        reached = {int(i) for i in difference.nonzero()}
        assert reached == ({0, 3, 12, 15} if shifted else {0, 1, 4, 5})


def test_causal_prefix_does_not_see_the_new_latents():
    torch.manual_seed(0)
    attention = SelfAttention(TransformerConfig(32, 1, 2, prefix_causal=True), shifted=False)
    x, rope = torch.randn(1, 3, 4, 32), rope_3d((3, 2, 2), 16, torch.device("cpu"))
    changed = x.clone()
    changed[:, 2] += 1
    (before, _), (after, _) = attention(x, rope, (3, 2, 2), 2), attention(changed, rope, (3, 2, 2), 2)
    assert torch.allclose(before[:, :2], after[:, :2], atol=1e-6)
    assert not torch.allclose(before[:, 2], after[:, 2], atol=1e-4)


def test_refiner_reads_pose_and_lr_and_reference():
    torch.manual_seed(0)
    model = PGRefiner(tiny().refiner).eval().requires_grad_(False)
    fill_zero_weights(model)
    inputs = {
        "window": torch.randn(1, 16, 4, 8, 8),
        "timesteps": torch.tensor([[1.0, 1, 0, 0]]),
        "new": 2,
        "degraded": torch.randn(1, 16, 4, 8, 8),
        "pose_tokens": torch.randn(1, 4, 16, 512),
    }
    before = model(**inputs)
    assert before.shape == (1, 16, 2, 8, 8)
    for name in ("window", "degraded", "pose_tokens"):
        assert not torch.allclose(model(**{**inputs, name: torch.randn_like(inputs[name])}), before, atol=1e-4), name
