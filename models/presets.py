"""Named presets: three tiers of the same code, and a tiny one for tests."""

from __future__ import annotations

from models.configs import (
    AnimatorConfig,
    AudioEncoderConfig,
    LRA2VConfig,
    PoseConfig,
    Preset,
    RefinerConfig,
    SamplingConfig,
    TextEncoderConfig,
    TinyDecoderConfig,
    TransformerConfig,
    VAEConfig,
)


def presenter_256() -> Preset:
    """Real time on two CPU cores: LR 128², HR 256²; the shipped weights."""
    return Preset(name="presenter-256", lr_size=(128, 128), hr_size=(256, 256))


def presenter_512() -> Preset:
    """One small GPU: LR 256², HR 512², the same recipe with wider models."""
    return Preset(
        name="presenter-512",
        lr_size=(256, 256),
        hr_size=(512, 512),
        vae=VAEConfig(encoder_width=128, trunk_width=256, frame_width=128, detail_width=64),
        lr_a2v=LRA2VConfig(transformer=TransformerConfig(width=384, layers=8, heads=6)),
        refiner=RefinerConfig(transformer=TransformerConfig(width=384, layers=6, heads=6, attention_window=8)),
    )


def paper_720p() -> Preset:
    """The paper's scale: LR 352×640 (1.3B shape), HR 704×1280 (28 layers of 1792, the shape of Goku's 2B).

    The refiner has 1.1B parameters: it shares one modulation and has no text cross-attention. Both are prefix-causal:
    LR-A2V goes over its clean latents once for all steps.
    """
    return Preset(
        name="paper-720p",
        lr_size=(352, 640),
        hr_size=(704, 1280),
        audio=AudioEncoderConfig(width=768),
        text=TextEncoderConfig(max_bytes=512, tokens=512, width=4096),
        lr_a2v=LRA2VConfig(
            transformer=TransformerConfig(width=1536, layers=30, heads=12, mlp_ratio=8960 / 1536, prefix_causal=True),
            audio_width=768,
            text_width=4096,
            motion_dim=0,
            prediction="velocity",
        ),
        animator=None,
        refiner=RefinerConfig(
            transformer=TransformerConfig(width=1792, layers=28, heads=28, prefix_causal=True), prediction="velocity"
        ),
        tiny_decoder=TinyDecoderConfig(),
        sampling=SamplingConfig(lr_steps=4),
        motion_latents=2,
    )


def tiny() -> Preset:
    """For tests: every part there, nothing large."""
    return Preset(
        name="tiny",
        lr_size=(48, 48),
        hr_size=(96, 96),
        vae=VAEConfig(encoder_width=8, trunk_width=16, trunk_blocks=2, frame_width=8, detail_width=8, detail_blocks=1),
        audio=AudioEncoderConfig(width=16),
        text=TextEncoderConfig(max_bytes=16, tokens=2, width=8),
        lr_a2v=LRA2VConfig(
            transformer=TransformerConfig(width=32, layers=2, heads=2), audio_width=16, features=8, text_width=8
        ),
        pose=PoseConfig(hidden=16, coarse_size=16, mouth_crop=(12, 16)),
        animator=AnimatorConfig(
            points_width=16, flow_cells=12, flow_width=16, audio_width=16, text_tokens=2, text_width=8
        ),
        refiner=RefinerConfig(
            transformer=TransformerConfig(width=32, layers=2, heads=2, attention_window=2), features=8
        ),
    )


PRESETS = {"presenter-256": presenter_256, "presenter-512": presenter_512, "paper-720p": paper_720p, "tiny": tiny}


def preset(name: str) -> Preset:
    """Preset by name.

    Raises:
        ValueError: if there is none of that name.
    """
    if name not in PRESETS:
        raise ValueError(f"unknown preset {name!r}; there are {', '.join(PRESETS)}")
    return PRESETS[name]()
