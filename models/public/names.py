"""Names of published parameters → ours: rules of what to replace, applied in order."""

from __future__ import annotations

import re
from collections.abc import Iterable

Rules = tuple[tuple[str, str], ...]  # regular expression, replacement


def renamed(name: str, rules: Rules) -> str:
    """The name after all rules, each applied to what the one before made of it."""
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name


def _upsamples() -> Rules:
    """Blocks of three residual blocks and a resampling are one list in the published file."""
    blocks = range(4)
    residuals = [(rf"\.up_blocks\.{i}\.resnets\.{j}\.", f".upsamples.{4 * i + j}.") for i in blocks for j in range(3)]
    resamples = [(rf"\.up_blocks\.{i}\.upsamplers\.0\.", f".upsamples.{4 * i + 3}.") for i in blocks]
    return (*residuals, *resamples)


# diffusers' AutoencoderKLWan → Wan2.1_VAE
WAN_VAE_FROM_DIFFUSERS: Rules = (
    (r"\.norm1\.", ".residual.0."),
    (r"\.conv1\.", ".residual.2."),
    (r"\.norm2\.", ".residual.3."),
    (r"\.conv2\.", ".residual.6."),
    (r"\.conv_shortcut\.", ".shortcut."),
    (r"\.mid_block\.resnets\.0\.", ".middle.0."),
    (r"\.mid_block\.attentions\.0\.", ".middle.1."),
    (r"\.mid_block\.resnets\.1\.", ".middle.2."),
    (r"\.down_blocks\.", ".downsamples."),
    *_upsamples(),
    (r"\.conv_in\.", ".conv1."),
    (r"\.norm_out\.", ".head.0."),
    (r"\.conv_out\.", ".head.2."),
    (r"^quant_conv\.", "conv1."),
    (r"^post_quant_conv\.", "conv2."),
)

# diffusers' WanTransformer3DModel → Wan's own
WAN_FROM_DIFFUSERS: Rules = (
    (r"^condition_embedder\.time_embedder\.linear_1\.", "time_embedding.0."),
    (r"^condition_embedder\.time_embedder\.linear_2\.", "time_embedding.2."),
    (r"^condition_embedder\.time_proj\.", "time_projection.1."),
    (r"^condition_embedder\.text_embedder\.linear_1\.", "text_embedding.0."),
    (r"^condition_embedder\.text_embedder\.linear_2\.", "text_embedding.2."),
    (r"^condition_embedder\.image_embedder\.norm1\.", "img_emb.proj.0."),
    (r"^condition_embedder\.image_embedder\.ff\.net\.0\.proj\.", "img_emb.proj.1."),
    (r"^condition_embedder\.image_embedder\.ff\.net\.2\.", "img_emb.proj.3."),
    (r"^condition_embedder\.image_embedder\.norm2\.", "img_emb.proj.4."),
    (r"\.attn1\.", ".self_attn."),
    (r"\.attn2\.", ".cross_attn."),
    (r"\.to_([qkv])\.", r".\1."),
    (r"\.to_out\.0\.", ".o."),
    (r"\.add_([kv])_proj\.", r".\1_img."),
    (r"\.norm_added_k\.", ".norm_k_img."),
    (r"(\.\d+)\.norm2\.", r"\1.norm3."),
    (r"\.ffn\.net\.0\.proj\.", ".ffn.0."),
    (r"\.ffn\.net\.2\.", ".ffn.2."),
    (r"(\.\d+)\.scale_shift_table$", r"\1.modulation"),
    (r"^scale_shift_table$", "head.modulation"),
    (r"^proj_out\.", "head.head."),
)


def wan_rules(names: Iterable[str]) -> Rules:
    """The rules for the names of a Wan transformer: none if they are Wan's own."""
    return WAN_FROM_DIFFUSERS if any(name.startswith("condition_embedder.") for name in names) else ()
