"""Folders as people download them → talking models.

    models/
        SoulX-FlashHead-1_3B/
            Model_Pro/   config.json, diffusion_pytorch_model.safetensors
            Model_Lite/  the same
            VAE_Wan/     Wan2.1_VAE.safetensors (published as .pth, to be converted)
            VAE_LTX/     config.json, diffusion_pytorch_model.safetensors
        leaptalk/        adapter_config.json, adapter_model.safetensors, audio_proj….safetensors (published as .pt),
                         taew2_1.safetensors
        wav2vec2-base-960h/  config.json, model.safetensors

The folder that is named says what is run: Model_Pro, Model_Lite or leaptalk. What else it needs is looked for beside it
and one folder up. All of it is looked at, by the files' headers, before the first tensor is read.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from models.errors import CheckpointError
from models.fp8 import use_fp8
from models.graphs import CudaGraphs
from models.public.chunk_loop import AutoEncoder
from models.public.flashhead import FlashHead, FlashHeadConfig, published_shapes, to_own_layout
from models.public.folders import Weights, check_fit, load_into, read_weights
from models.public.leaptalk import merge_lora, with_audio_projection
from models.public.ltx_vae import LTXVAE, LTXVAEConfig
from models.public.pipeline import FlashHeadPipeline
from models.public.taehv import TAEHV
from models.public.wan_vae import WanVAE, WanVAEConfig
from models.public.wav2vec2 import AudioFrontEnd, empty_model, own_name

AUDIO_FOLDER = "wav2vec2-base-960h"
BASE_FOLDER = "SoulX-FlashHead-1_3B"
TINY_CODER = "taew2_1.safetensors"
PRECISIONS = ("auto", "fp32", "bf16", "fp8")
Coder = Literal["wan", "tiny", "ltx"]


@dataclass(frozen=True)
class Parts:
    """The files of a model, all of them there, and known by their headers to fit each other."""

    config: FlashHeadConfig
    denoiser: Weights
    audio: Weights
    coder: Weights
    coder_kind: Coder
    lora: Weights | None = None
    lora_scale: float = 1.0
    audio_projection: Weights | None = None


def load_public(
    folder: Path,
    device: torch.device | str = "cpu",
    precision: str = "auto",
    has_graphs: bool = False,
    frame_size: tuple[int, int] = (512, 512),
) -> FlashHeadPipeline:
    """The talking model of a downloaded folder.

    Args:
        precision: "fp32", "bf16", "fp8" (bf16 with the denoiser's large products in e4m3), or "auto": bf16 on CUDA. As
            the models were made for bf16, fp32 does not make the same frames.
        has_graphs: replay the models from CUDA graphs; without effect elsewhere.
        frame_size: of the frames, pixels; the weights were made for 512².

    Raises:
        CheckpointError: if a part is missing, broken, or does not fit.
        ValueError: for an unknown precision, or a frame size that is no multiple of the latents' side.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}, got {precision!r}")
    parts = find_parts(folder)
    target = torch.device(device)
    if precision == "auto":
        precision = "bf16" if target.type == "cuda" else "fp32"
    dtype = torch.float32 if precision == "fp32" else torch.bfloat16
    denoiser = _load_denoiser(parts).to(target, dtype)
    if precision == "fp8":
        use_fp8(denoiser)
    return FlashHeadPipeline(
        denoiser.eval().requires_grad_(False),
        cast(AutoEncoder, _load_coder(parts).to(target, dtype).eval().requires_grad_(False)),
        AudioFrontEnd.from_tensors(json.dumps(parts.audio.config), dict(parts.audio.read())).to(target),
        frame_size,
        is_bridge=parts.lora is not None,
        graphs=CudaGraphs() if has_graphs and target.type == "cuda" else None,
    )


def find_parts(folder: Path) -> Parts:
    """All files of a model, held against each other by their headers alone.

    Raises:
        CheckpointError: if a part is missing, broken, or does not fit.
    """
    if not folder.is_dir():
        raise CheckpointError(f"{folder} is no folder of weights")
    if (folder / "adapter_config.json").exists():
        return _leaptalk_parts(folder)
    if models := sorted(child.name for child in folder.glob("Model_*") if child.is_dir()):
        raise CheckpointError(f"{folder} holds {' and '.join(models)}: name one of them")
    denoiser = read_weights(folder)
    config = _flashhead_config(denoiser)
    if config.frame_stride == 4:
        coder = _near(folder, "VAE_Wan/Wan2.1_VAE.safetensors", "VAE_Wan/Wan2.1_VAE.pth")
        kind: Coder = "wan"
    else:
        coder, kind = _near(folder, "VAE_LTX"), "ltx"
    return _checked(Parts(config, denoiser, read_weights(_near(folder, AUDIO_FOLDER)), read_weights(coder), kind))


def _leaptalk_parts(folder: Path) -> Parts:
    base = _near(folder, f"{BASE_FOLDER}/Model_Pro", "Model_Pro")
    denoiser, lora = read_weights(base), read_weights(folder / "adapter_model.safetensors")
    projections = sorted(folder.glob("audio_proj*.safetensors")) or sorted(folder.glob("audio_proj*"))
    if not projections:
        raise CheckpointError(f"{folder} lacks audio_proj….safetensors")
    tiny = sorted(folder.glob("taew2_1.*"), key=lambda path: path.suffix != ".safetensors")
    coder = tiny[0] if tiny else _near(base, "VAE_Wan/Wan2.1_VAE.safetensors", "VAE_Wan/Wan2.1_VAE.pth")
    parts = Parts(
        config=_flashhead_config(denoiser),
        denoiser=denoiser,
        audio=read_weights(_near(folder, AUDIO_FOLDER)),
        coder=read_weights(coder),
        coder_kind="tiny" if tiny else "wan",
        lora=lora,
        lora_scale=_lora_scale(folder / "adapter_config.json"),
        audio_projection=read_weights(projections[0]),
    )
    return _checked(parts)


def _near(folder: Path, *names: str) -> Path:
    """The first of these that is in the folder, beside it, or one further up.

    Raises:
        CheckpointError: if none is.
    """
    places = [folder, *folder.resolve().parents[:2]]
    for name in names:
        for place in places:
            if (place / name).exists():
                return place / name
    raise CheckpointError(f"{folder} needs {names[0]}, in it, beside it or in the folder above")


def _flashhead_config(weights: Weights) -> FlashHeadConfig:
    if not weights.config:
        raise CheckpointError(f"{weights.path} has no config.json")
    try:
        return FlashHeadConfig.from_json(json.dumps(dict(weights.config)))
    except (ValueError, TypeError) as error:
        raise CheckpointError(f"{weights.path}: its config.json is not FlashHead's: {error}") from error


def _lora_scale(path: Path) -> float:
    try:
        config: dict[str, Any] = json.loads(path.read_text())
        scale = float(config["lora_alpha"]) / float(config["r"])
    except (OSError, ValueError, KeyError, TypeError, ZeroDivisionError) as error:
        raise CheckpointError(f"{path} does not say lora_alpha and r: {error}") from error
    if config.get("use_dora") or config.get("use_rslora") or config.get("rank_pattern") or config.get("alpha_pattern"):
        raise CheckpointError(f"{path} is of a kind of LoRA that is not known here")
    return scale


def _checked(parts: Parts) -> Parts:
    """Names and shapes of every file against what its model has."""
    wanted = published_shapes(parts.config)
    check_fit(parts.denoiser.shapes(), wanted, parts.denoiser.path)
    if parts.audio_projection is not None:
        projection = {
            name.removeprefix("audio_proj."): shape for name, shape in wanted.items() if "audio_proj." in name
        }
        check_fit(parts.audio_projection.shapes(), projection, parts.audio_projection.path)
    if parts.lora is not None:
        _check_lora(parts.lora, wanted)
    with torch.device("meta"):
        coder = _empty_coder(parts)
    check_fit(parts.coder.shapes(), _coder_shapes(coder), parts.coder.path)
    sizes = tuple(parts.audio.config.get(name) for name in ("num_hidden_layers", "hidden_size"))
    if sizes != (parts.config.audio_layers, parts.config.audio_width):
        wanted_sizes = f"{parts.config.audio_layers} of {parts.config.audio_width}"
        raise CheckpointError(f"{parts.audio.path} has {sizes[0]} layers of {sizes[1]}, wanted {wanted_sizes}")
    front_end = empty_model(json.dumps(dict(parts.audio.config)))
    names = {name: tuple(tensor.shape) for name, tensor in front_end.state_dict().items()}
    found = {own_name(name): shape for name, shape in parts.audio.shapes().items()}
    check_fit({name: shape for name, shape in found.items() if name in names}, names, parts.audio.path)
    return parts


def _check_lora(lora: Weights, wanted: dict[str, tuple[int, ...]]) -> None:
    """By merging it on the meta device: what does not fit is found there."""
    with torch.device("meta"):
        base = {name: torch.empty(shape) for name, shape in wanted.items()}
        changes = {name: torch.empty(shape) for name, shape in lora.shapes().items()}
    try:
        merge_lora(base, changes, 1.0)
    except CheckpointError as error:
        raise CheckpointError(f"{lora.path}: {error}") from error


def _load_denoiser(parts: Parts) -> FlashHead:
    published: dict[str, Tensor] = dict(parts.denoiser.read())
    if parts.lora is not None:
        published = merge_lora(published, dict(parts.lora.read()), parts.lora_scale)
    if parts.audio_projection is not None:
        published = with_audio_projection(published, dict(parts.audio_projection.read()))
    with torch.device("meta"):
        denoiser = FlashHead(parts.config)
    load_into(denoiser, to_own_layout(published, parts.config), parts.denoiser.path)
    return denoiser


def _load_coder(parts: Parts) -> nn.Module:
    coder = _empty_coder(parts)
    if isinstance(coder, TAEHV):
        coder.load(parts.coder.path)
    else:
        load_into(coder, parts.coder.read(), parts.coder.path)
    return coder


def _empty_coder(parts: Parts) -> nn.Module:
    """The auto-encoder that a file is of; its width, where there is no config.json, is read off the file."""
    if parts.coder_kind == "tiny":
        return TAEHV()
    if parts.coder_kind == "ltx":
        return LTXVAE(_ltx_config(parts))
    first = parts.coder.shapes().get("encoder.conv1.weight", (0,))[0]
    try:
        return WanVAE(WanVAEConfig(width=first))
    except ValueError as error:
        raise CheckpointError(f"{parts.coder.path} is not Wan2.1's VAE: it has no encoder.conv1.weight") from error


def _ltx_config(parts: Parts) -> LTXVAEConfig:
    try:
        config = LTXVAEConfig.from_published(parts.coder.config)
    except CheckpointError as error:
        raise CheckpointError(f"{parts.coder.path}: {error}") from error
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{parts.coder.path}: its config.json is not the LTX VAE's: {error}") from error
    if config.latent_channels != parts.config.out_dim:
        found, wanted = config.latent_channels, parts.config.out_dim
        raise CheckpointError(f"{parts.coder.path} has latents of {found} channels, the denoiser of {wanted}")
    return config


def _coder_shapes(coder: nn.Module) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the file: TAEHV is one there, and two modules here."""
    parts = (coder.tiny_encoder, coder.tiny_decoder) if isinstance(coder, TAEHV) else (coder,)
    return {name: tuple(tensor.shape) for part in parts for name, tensor in part.state_dict().items()}
