import torch

from models.configs import TransformerConfig
from models.layers import SelfAttention, apply_rope, patchify, rope_3d, unpatchify
from models.presets import tiny
from models.refiner import PGRefiner
from tests.models.conftest import fill_zero_weights


def test_patches_come_back():
    latents = torch.randn(2, 16, 3, 6, 8)
    assert torch.equal(unpatchify(patchify(latents), 6, 8), latents)


def test_rope_sees_distances_only():
    q, k = torch.randn(1, 1, 1, 32), torch.randn(1, 1, 1, 32)
    cos, sin = rope_3d((3, 6, 6), 32, torch.device("cpu"))

    def score(i: int, j: int) -> torch.Tensor:
        return (apply_rope(q, (cos[i : i + 1], sin[i : i + 1])) * apply_rope(k, (cos[j : j + 1], sin[j : j + 1]))).sum()

    here, there = score(0, 7), score(36 + 2 * 6 + 1, 36 + 3 * 6 + 2)
    assert torch.allclose(here, there, atol=1e-5)
    assert not torch.allclose(here, score(0, 8), atol=1e-4)


def test_a_window_as_large_as_the_picture_is_all_of_it():
    torch.manual_seed(0)
    windowed = SelfAttention(TransformerConfig(32, 1, 2, attention_window=4), shifted=False)
    whole = SelfAttention(TransformerConfig(32, 1, 2), shifted=False)
    whole.load_state_dict(windowed.state_dict())
    x, rope = torch.randn(1, 2, 16, 32), rope_3d((2, 4, 4), 16, torch.device("cpu"))
    assert torch.allclose(windowed(x, rope, (2, 4, 4), 0), whole(x, rope, (2, 4, 4), 0), atol=1e-5)


def test_windows_keep_tokens_in_their_places():
    torch.manual_seed(0)
    for shifted in (False, True):
        attention = SelfAttention(TransformerConfig(32, 1, 2, attention_window=2), shifted=shifted)
        x, rope = torch.randn(1, 2, 16, 32), rope_3d((2, 4, 4), 16, torch.device("cpu"))
        changed = x.clone()
        changed[:, :, 0] += 1  # the corner token, in both frames
        difference = (attention(changed, rope, (2, 4, 4), 0) - attention(x, rope, (2, 4, 4), 0)).abs().amax((0, 1, 3))
        reached = {int(i) for i in difference.nonzero()}
        assert reached == ({0, 3, 12, 15} if shifted else {0, 1, 4, 5})


def test_causal_prefix_does_not_see_the_new_latents():
    torch.manual_seed(0)
    attention = SelfAttention(TransformerConfig(32, 1, 2, prefix_causal=True), shifted=False)
    x, rope = torch.randn(1, 3, 4, 32), rope_3d((3, 2, 2), 16, torch.device("cpu"))
    changed = x.clone()
    changed[:, 2] += 1
    before, after = attention(x, rope, (3, 2, 2), 2), attention(changed, rope, (3, 2, 2), 2)
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
