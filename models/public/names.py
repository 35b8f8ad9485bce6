"""Names of published parameters → ours: rules of what to replace, applied in order."""

from __future__ import annotations

import re

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
