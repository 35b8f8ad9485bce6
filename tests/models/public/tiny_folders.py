"""Tiny random checkpoints in the layout that people download: every file of it, of a few hundred kilobytes."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import torch
from safetensors.torch import save_file

from models.public.conformance import rule
from models.public.flashhead import FlashHeadConfig, published_shapes
from models.public.ltx_vae import LTXVAE, LTXVAEConfig
from models.public.wan_vae import WanVAE, WanVAEConfig
from models.public.wav2vec2 import empty_model

PRO = FlashHeadConfig(
    dim=48, ffn_dim=64, in_dim=32, out_dim=16, text_dim=16, freq_dim=16, num_heads=2, num_layers=2,
    patch_size=(1, 2, 2), vae_stride=(4, 8, 8), audio_layers=2, audio_width=32, audio_hidden=16, audio_tokens=4,
)  # fmt: skip
LITE = dataclasses.replace(PRO, in_dim=16, out_dim=8, patch_size=(1, 1, 1), vae_stride=(8, 32, 32))
WAV2VEC2 = {
    "model_type": "wav2vec2", "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
    "intermediate_size": 64, "conv_dim": [16] * 7, "conv_kernel": [10, 3, 3, 3, 3, 2, 2],
    "conv_stride": [5, 2, 2, 2, 2, 2, 2], "conv_bias": False, "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4, "feat_extract_norm": "group", "vocab_size": 32,
}  # fmt: skip
LTX = {
    "_class_name": "AutoencoderKLLTXVideo", "in_channels": 3, "out_channels": 3, "latent_channels": 8,
    "block_out_channels": [8, 16, 16, 16], "decoder_block_out_channels": [8, 16, 16, 16],
    "layers_per_block": [1, 1, 1, 1, 1], "decoder_layers_per_block": [1, 1, 1, 1, 1],
    "spatio_temporal_scaling": [True, True, True, False], "patch_size": 4, "patch_size_t": 1,
    "encoder_causal": True, "decoder_causal": False, "timestep_conditioning": False,
}  # fmt: skip


def write(folder: Path, seed: int = 1) -> Path:
    """The whole tree; returns the folder that holds it: Model_Pro, Model_Lite and leaptalk can be named."""
    base = folder / "SoulX-FlashHead-1_3B"
    for name, config in (("Model_Pro", PRO), ("Model_Lite", LITE)):
        text = json.dumps({"_class_name": "WanModelAudioProject", **dataclasses.asdict(config)})
        _put(base / name / "diffusion_pytorch_model.safetensors", rule.weights(published_shapes(config), seed), text)
    with torch.device("meta"):
        wan, ltx = WanVAE(WanVAEConfig(width=4)), LTXVAE(LTXVAEConfig.from_published(LTX))
    _put(base / "VAE_Wan/Wan2.1_VAE.safetensors", rule.weights(rule.shapes_of(wan), seed, "wan."))
    statistics = {"latents_mean": (0.0, 0.3), "latents_std": (1.0, 0.1)}
    ltx_weights = rule.weights(rule.shapes_of(ltx), seed, "ltx.", statistics)
    _put(base / "VAE_LTX/diffusion_pytorch_model.safetensors", ltx_weights, json.dumps(LTX))
    audio = json.dumps(WAV2VEC2)
    shapes = {_published(name): shape for name, shape in rule.shapes_of(empty_model(audio)).items()}
    shapes |= {"lm_head.weight": (32, 32), "lm_head.bias": (32,)}
    _put(folder / "wav2vec2-base-960h/model.safetensors", rule.weights(shapes, seed), audio)
    _write_leaptalk(folder / "leaptalk", seed)
    return folder


def _write_leaptalk(folder: Path, seed: int) -> None:
    lora = {}
    for block in range(PRO.num_layers):
        for attention in ("self_attn", "cross_attn"):
            for projection in "qkvo":
                name = f"base_model.model.blocks.{block}.{attention}.{projection}"
                lora |= {f"{name}.lora_A.weight": (4, PRO.dim), f"{name}.lora_B.weight": (PRO.dim, 4)}
    _put(folder / "adapter_model.safetensors", rule.weights(lora, seed))
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 4, "lora_alpha": 4}))
    prefix = "audio_proj."
    projection = {n.removeprefix(prefix): s for n, s in published_shapes(PRO).items() if n.startswith(prefix)}
    tensors = rule.weights(projection, seed, "leaptalk.audio_proj.")
    _put(folder / "audio_proj_step_10400.safetensors", {name: tensor.half() for name, tensor in tensors.items()})


def _put(path: Path, tensors: dict[str, torch.Tensor], config: str | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, path)
    if config is not None:
        (path.parent / "config.json").write_text(config)


def _published(name: str) -> str:
    """A tensor's name in the file that is downloaded, which is older than the way weight norm is stored now."""
    name = name.replace("parametrizations.weight.original0", "weight_g")
    return "wav2vec2." + name.replace("parametrizations.weight.original1", "weight_v")
