"""The families of public weights that are known here: how a file is recognised, whose it is, what goes with it.

Licences are given as they are stated, and by whom where that is not the maker; `docs/weights.md` tells people the same.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from models.errors import CheckpointError
from models.public.flashhead import FlashHeadConfig
from models.public.flashhead import published_shapes as flashhead_shapes
from models.public.folders import Weights
from models.public.infinitetalk import InfiniteTalk, InfiniteTalkConfig
from models.public.ltx_vae import LTXVAE, LTXVAEConfig
from models.public.names import WAN_FROM_DIFFUSERS, WAN_VAE_FROM_DIFFUSERS, Rules, renamed
from models.public.taehv import TAEHV
from models.public.wan import MAX_LAYERS, Wan, WanConfig
from models.public.wan_vae import WanVAE, WanVAEConfig

Shapes = Mapping[str, tuple[int, ...]]
THIRD_PARTY = "as third parties report the model card"


@dataclass(frozen=True)
class Work:
    """What a chunk costs at the published size: passes over so many tokens, and the auto-encoder.

    `parameters` are those that every token goes through; sound, prompt and picture are small beside them.
    """

    chunk_s: float
    passes: int
    tokens: int
    parameters: int
    layers: int
    width: int
    autoencoder_flops: float

    @property
    def flops(self) -> float:
        """Two a multiply-add: 2 a parameter and token, 4·L·D a pair of tokens."""
        pairs = 4 * self.layers * self.width * self.tokens**2
        return self.passes * (2 * self.parameters * self.tokens + pairs) + self.autoencoder_flops


@dataclass(frozen=True)
class Family:
    """One kind of file.

    Attributes:
        files: what the published file or folder is called.
        marks: names of tensors that together only this family has.
        needs: families that must lie beside it before it talks.
        rules: published names → ours, for files under diffusers' names.
        expected: names and shapes that a file should have; None: the marks are all that is known.
        work: of those that talk.
    """

    name: str
    title: str
    files: str
    made_by: str
    code_licence: str
    weights_licence: str
    marks: tuple[str, ...]
    needs: tuple[str, ...] = ()
    rules: Rules = ()
    expected: Callable[[Weights], Shapes] | None = None
    work: Work | None = None

    def names(self, weights: Weights) -> dict[str, str]:
        """Name in the file → our name."""
        return {name: renamed(name, self.rules) for name in weights.tensors}

    def shapes(self, weights: Weights) -> dict[str, tuple[int, ...]]:
        """Of a file's tensors, under our names."""
        return {renamed(name, self.rules): shape for name, shape in weights.shapes().items()}


def identify(weights: Weights) -> Family:
    """The family of a file.

    Raises:
        CheckpointError: if it is none that is known here.
    """
    names = weights.tensors.keys()
    for family in FAMILIES:
        if names >= set(family.marks):
            # Pro and Lite have the same names: the channels of noise and reference tell them apart
            is_lite = family.name == "flashhead-pro" and weights.shapes()["patch_embedding.weight"][1:2] == (256,)
            return family_named("flashhead-lite") if is_lite else family
    raise CheckpointError(
        f"{weights.path} holds no model that is known here: {len(names)} tensors, the first {min(names)}"
    )


def family_named(name: str) -> Family:
    return next(family for family in FAMILIES if family.name == name)


def _meta_shapes(make: Callable[[], nn.Module]) -> Shapes:
    with torch.device("meta"):
        return {name: tuple(tensor.shape) for name, tensor in make().state_dict().items()}


def wan_config(weights: Weights) -> WanConfig:
    """What the config.json of a Wan transformer says, or else its shapes do: Wan's heads are 128 wide."""
    if weights.config:
        return WanConfig.from_published(weights.config)
    shapes = {renamed(name, WAN_FROM_DIFFUSERS): shape for name, shape in weights.shapes().items()}
    try:
        dim, in_dim, _, rows, columns = shapes["patch_embedding.weight"]
        image = shapes.get("img_emb.proj.0.weight")
        return WanConfig(
            dim=dim,
            ffn_dim=shapes["blocks.0.ffn.0.weight"][0],
            num_layers=1 + max(int(name.split(".")[1]) for name in shapes if name.startswith("blocks.")),
            num_heads=max(dim // 128, 1),
            in_dim=in_dim,
            out_dim=shapes["head.head.weight"][0] // (rows * columns),
            text_dim=shapes["text_embedding.0.weight"][1],
            freq_dim=shapes["time_embedding.0.weight"][1],
            image_dim=None if image is None else image[0],
        )
    except (KeyError, ValueError, IndexError) as error:
        raise CheckpointError(f"{weights.path} has no config.json, and its shapes are not Wan's: {error}") from error


def _wan_vae_shapes(weights: Weights) -> Shapes:
    config = WanVAEConfig(width=weights.config.get("base_dim", 96))
    return _meta_shapes(lambda: WanVAE(config))


def _ltx_shapes(weights: Weights) -> Shapes:
    config = LTXVAEConfig.from_published(weights.config) if weights.config else LTXVAEConfig()
    return _meta_shapes(lambda: LTXVAE(config))


def _taehv_shapes(_: Weights) -> Shapes:
    with torch.device("meta"):
        model = TAEHV()
    halves = (model.tiny_encoder, model.tiny_decoder)
    return {name: tuple(tensor.shape) for half in halves for name, tensor in half.state_dict().items()}


def _talk_shapes(weights: Weights) -> Shapes:
    config = InfiniteTalkConfig(wan=wan_config(weights))
    return _meta_shapes(lambda: InfiniteTalk(config))


def _talk_added_shapes(_: Weights) -> Shapes:
    whole = _meta_shapes(lambda: InfiniteTalk(InfiniteTalkConfig()))
    return {name: shape for name, shape in whole.items() if "audio_" in name or ".norm_x." in name}


def _flashhead_shapes(weights: Weights) -> Shapes:
    if not weights.config:
        raise CheckpointError(f"{weights.path} has no config.json beside it, which says what it is made for")
    try:
        config = FlashHeadConfig.from_json(json.dumps(weights.config))
        if config.num_layers > MAX_LAYERS:
            raise ValueError(f"num_layers must be at most {MAX_LAYERS}, got {config.num_layers}")
        return flashhead_shapes(config)
    except ValueError as error:
        raise CheckpointError(f"the config.json beside {weights.path.name} cannot be used: {error}") from error


def _through(layers: int, width: int, hidden: int) -> int:
    """Parameters of Wan blocks that every token goes through: four of self-, two of cross-attention, and the MLP."""
    return layers * (6 * width**2 + 2 * width * hidden)


_SMALL = _through(30, 1536, 8960)
_APACHE = "Apache-2.0"
_WAN: dict[str, Any] = {"made_by": "Wan-Video (Wan2.1, Wan2.2)", "code_licence": _APACHE, "weights_licence": _APACHE}
_FLASHHEAD: dict[str, Any] = {
    "made_by": "Soul-AILab/SoulX-FlashHead",
    "code_licence": _APACHE,
    "weights_licence": f"{_APACHE}, {THIRD_PARTY}",
    "expected": _flashhead_shapes,
}
_LEAPTALK: dict[str, Any] = {
    "made_by": "zhangrongxiang/LeapTalk",
    "code_licence": f"{_APACHE}, as third parties report of a later commit",
    "weights_licence": f"{_APACHE}, {THIRD_PARTY}",
}

# The first whose marks are all there is meant: what is added to a model comes before that model.
FAMILIES: tuple[Family, ...] = (
    Family(
        name="flashtalk",
        title="SoulX-FlashTalk 14B",
        files="SoulX-FlashTalk-14B",
        made_by="Soul-AILab/SoulX-FlashTalk",
        code_licence=_APACHE,
        weights_licence=_APACHE,
        marks=("audio_proj.proj1_vf.weight", "blocks.0.audio_cross_attn.q_linear.weight", "patch_embedding.weight"),
        needs=("wan-vae", "wav2vec2", "umt5", "clip"),
        expected=_talk_shapes,
        work=Work(1.12, 4, 12096, _through(40, 5120, 13824) + 40 * 2 * 5120**2, 40, 5120, 1.06e14),
    ),
    Family(
        name="infinitetalk",
        title="InfiniteTalk, over Wan2.1-I2V-14B",
        files="infinitetalk.safetensors",
        made_by="MeiGen-AI/InfiniteTalk",
        code_licence=_APACHE,
        weights_licence=_APACHE,
        marks=("audio_proj.proj1_vf.weight", "blocks.0.audio_cross_attn.q_linear.weight"),
        needs=("wan", "wan-vae", "wav2vec2", "umt5", "clip"),
        expected=_talk_added_shapes,
    ),
    Family(
        name="flashhead-pro",
        title="SoulX-FlashHead 1.3B Pro",
        files="Model_Pro",
        marks=("audio_proj.proj1_vf.weight", "patch_embedding.weight"),
        needs=("wan-vae", "wav2vec2"),
        work=Work(1.12, 4, 9216, _SMALL, 30, 1536, 8.1e13),
        **_FLASHHEAD,
    ),
    Family(
        name="flashhead-lite",
        title="SoulX-FlashHead 1.3B Lite",
        files="Model_Lite",
        marks=("audio_proj.proj1_vf.weight", "patch_embedding.weight"),
        needs=("ltx-vae", "wav2vec2"),
        work=Work(0.96, 4, 1280, _SMALL, 30, 1536, 9.8e12),
        **_FLASHHEAD,
    ),
    Family(
        name="leaptalk-lora",
        title="LeapTalk, a LoRA on SoulX-FlashHead Pro",
        files="adapter_model.safetensors",
        marks=("base_model.model.blocks.0.cross_attn.q.lora_A.weight",),
        needs=("flashhead-pro", "leaptalk-audio", "taehv", "wav2vec2"),
        work=Work(1.12, 1, 9216, _SMALL, 30, 1536, 3.4e12),
        **_LEAPTALK,
    ),
    Family(
        name="leaptalk-audio",
        title="LeapTalk's projection of sound",
        files="audio_proj_step_10400 (a .pt file as published)",
        marks=("proj1_vf.weight", "proj3.weight"),
        **_LEAPTALK,
    ),
    Family(
        name="wan",
        title="Wan transformer",
        files="Wan2.1-T2V-1.3B, -T2V-14B, -I2V-14B, Wan2.2-TI2V-5B",
        marks=("patch_embedding.weight", "time_projection.1.weight"),
        expected=lambda weights: _meta_shapes(lambda: Wan(wan_config(weights))),
        **_WAN,
    ),
    Family(
        name="wan",
        title="Wan transformer, diffusers' names",
        files="Wan2.1-T2V-1.3B-Diffusers/transformer and its like",
        marks=("patch_embedding.weight", "condition_embedder.time_proj.weight"),
        rules=WAN_FROM_DIFFUSERS,
        expected=lambda weights: _meta_shapes(lambda: Wan(wan_config(weights))),
        **_WAN,
    ),
    Family(
        name="wan-vae",
        title="Wan2.1 VAE",
        files="Wan2.1_VAE (a .pth file as published)",
        marks=("decoder.upsamples.0.residual.2.weight", "conv2.weight"),
        expected=_wan_vae_shapes,
        **_WAN,
    ),
    Family(
        name="wan-vae",
        title="Wan2.1 VAE, diffusers' names",
        files="Wan2.1-…-Diffusers/vae",
        marks=("decoder.up_blocks.0.resnets.0.norm1.gamma", "post_quant_conv.weight"),
        rules=WAN_VAE_FROM_DIFFUSERS,
        expected=_wan_vae_shapes,
        **_WAN,
    ),
    Family(
        name="ltx-vae",
        title="LTX VAE, as SoulX-FlashHead Lite comes with it",
        files="VAE_LTX",
        made_by="Lightricks/LTX-Video",
        code_licence=_APACHE,
        weights_licence="as the card of the LTX-Video release that it is from says: read it",
        marks=("decoder.up_blocks.0.resnets.0.conv1.conv.weight", "latents_mean"),
        expected=_ltx_shapes,
    ),
    Family(
        name="taehv",
        title="TAEHV for Wan2.1 (taew2_1)",
        files="taew2_1.safetensors",
        made_by="madebyollin/taehv",
        code_licence="MIT",
        weights_licence="MIT",
        marks=("encoder.17.weight", "decoder.22.weight"),
        expected=_taehv_shapes,
    ),
    Family(
        name="wav2vec2",
        title="wav2vec2",
        files="wav2vec2-base-960h; chinese-wav2vec2-base for InfiniteTalk and FlashTalk",
        made_by="facebook, TencentGameMate",
        code_licence=_APACHE,
        weights_licence="see its card",
        marks=("wav2vec2.feature_extractor.conv_layers.0.conv.weight",),
    ),
    Family(
        name="umt5",
        title="UMT5 text encoder",
        files="Wan2.1-…-Diffusers/text_encoder",
        marks=("encoder.block.0.layer.0.SelfAttention.q.weight",),
        **_WAN,
    ),
    Family(
        name="clip",
        title="CLIP ViT-H/14 image encoder",
        files="Wan2.1-I2V-14B-…-Diffusers/image_encoder",
        marks=("vision_model.embeddings.patch_embedding.weight",),
        **_WAN,
    ),
)
