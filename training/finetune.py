"""Fine-tune LR-A2V or PG-Refiner from a Wan base by LoRA: flow matching on clips that are latents already.

    python -m training.finetune training/configs/finetune_lr_a2v.yaml

A clip is a safetensors file, its latents normalised as the base takes them:

    latents  [C, T, H, W]   the first latent is one frame, the reference
    audio    [T, K, Da]     sound tokens around each latent             (LR-A2V)
    text     [Lt, text_dim] of UMT5                                     (LR-A2V)
    degraded [C, T, H, W]   LPF(z_lr) + α·ε on the same grid (Eq. 5)    (refiner)
    pose     [T, H/2·W/2, pose_token_dim]                               (refiner)
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from models.errors import CheckpointError
from models.public.catalog import wan_config
from models.public.folders import read_weights
from models.public.wan_base import WanLRA2V, WanLRA2VConfig, WanRefiner, WanRefinerConfig, load_base
from training.config import parse_run
from training.lora import add_lora, lora_norm, save_trained

NEEDED = {"lr_a2v": ("latents", "audio", "text"), "refiner": ("latents", "degraded", "pose")}
LARGEST_TIME = 0.98  # towards the data nothing is left to learn, and the weight of the loss has no bound


@dataclass(frozen=True)
class FinetuneConfig:
    """One run. Windows are [reference | motion_latents | new_latents]; a step is `batch` of them.

    `shift` draws more time steps near the noise, as the base was trained. `drop` is the share of windows without sound
    (or without pose), for guidance.
    """

    model: Literal["lr_a2v", "refiner"]
    base: Path
    clips: Path
    out: Path
    steps: int = 2000
    rank: int = 64
    learning_rate: float = 1e-4
    warmup_steps: int = 50
    batch: int = 1
    motion_latents: int = 2
    new_latents: int = 3
    shift: float = 5.0
    drop: float = 0.1
    clip_norm: float = 1.0
    report_steps: int = 20
    save_steps: int = 500
    is_checkpointed: bool = True
    device: str = "cpu"
    bf16: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        if self.model not in NEEDED:
            raise ValueError(f"model must be lr_a2v or refiner, got {self.model!r}")
        if min(self.steps, self.rank, self.batch, self.new_latents) < 1 or self.motion_latents < 0:
            raise ValueError(f"steps, rank, batch and new_latents must be at least 1, got {self}")


@dataclass(frozen=True)
class Windows:
    """A batch of B windows of the same place in clips, [reference | motion | new], by the names of a clip's tensors."""

    tensors: dict[str, Tensor]
    new: int


def load_model(config: FinetuneConfig, example: dict[str, Tensor]) -> WanLRA2V | WanRefiner:
    """The model on its base, in bf16 where that is asked for, with the sizes of a clip."""
    wan = wan_config(read_weights(config.base))
    channels = example["latents"].shape[0]
    model: WanLRA2V | WanRefiner
    if config.model == "lr_a2v":
        window, width = example["audio"].shape[1:]
        model = WanLRA2V(
            WanLRA2VConfig(
                wan=wan, latent_channels=channels, text_width=wan.text_dim, audio_width=width, audio_window=window
            )
        )
    else:
        pose = example["pose"].shape[-1]
        model = WanRefiner(WanRefinerConfig(wan=wan, latent_channels=channels, pose_token_dim=pose))
    if config.bf16:
        model.to(torch.bfloat16)
    load_base(model.wan, config.base)
    model.wan.is_checkpointed = config.is_checkpointed
    return model.to(config.device)


def read_clip(path: Path, model: str) -> dict[str, Tensor]:
    """A clip's tensors.

    Raises:
        CheckpointError: if it cannot be read, or lacks one.
    """
    try:
        clip = load_file(path)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is not a readable clip: {error}") from error
    if missing := [name for name in NEEDED[model] if name not in clip]:
        raise CheckpointError(f"{path} lacks {missing[0]}, which {model} is trained with")
    return {name: clip[name].float() for name in NEEDED[model]}


def draw_windows(clips: list[Path], config: FinetuneConfig, chance: random.Random) -> Windows:
    """Random windows of random clips; the reference is a clip's first latent.

    Raises:
        CheckpointError: if a clip is too short.
    """
    rows: list[dict[str, Tensor]] = []
    span = config.motion_latents + config.new_latents
    for path in chance.choices(clips, k=config.batch):
        clip = read_clip(path, config.model)
        last = clip["latents"].shape[1] - span
        if last < 1:
            raise CheckpointError(f"{path} has {clip['latents'].shape[1]} latents, {span + 1} are needed")
        start = chance.randint(1, last)
        places = torch.tensor([0, *range(start, start + span)])
        row = {
            name: tensor if name == "text" else tensor.index_select(_time_axis(name), places)
            for name, tensor in clip.items()
        }
        if chance.random() < config.drop:
            dropped = "audio" if config.model == "lr_a2v" else "pose"
            row[dropped] = torch.zeros_like(row[dropped])
        rows.append(row)
    return Windows({name: torch.stack([row[name] for row in rows]) for name in rows[0]}, config.new_latents)


def _time_axis(name: str) -> int:
    return 1 if name in ("latents", "degraded") else 0


def loss_of(model: WanLRA2V | WanRefiner, windows: Windows, shift: float, generator: torch.Generator) -> Tensor:
    """Mean square of the velocity's error on the new latents: flow matching, t = 0 noise, t = 1 data."""
    tensors, new = windows.tensors, windows.new
    clean = tensors["latents"]
    batch, _, frames = clean.shape[:3]
    u = torch.rand(batch, generator=generator).to(clean.device)
    t = (u / (u + shift * (1 - u))).clamp_max(LARGEST_TIME)  # at shift 5 half of them are below 1/6
    noise = torch.randn(clean[:, :, -new:].shape, generator=generator).to(clean.device)
    mixed = t.view(-1, 1, 1, 1, 1) * clean[:, :, -new:] + (1 - t).view(-1, 1, 1, 1, 1) * noise
    window = torch.cat([clean[:, :, :-new], mixed], dim=2)
    times = torch.ones(batch, frames, device=clean.device)
    times[:, -new:] = t[:, None]
    if isinstance(model, WanLRA2V):
        denoised = model(window, times, new, tensors["text"], tensors["audio"][:, None])
    else:
        denoised = model(window, times, new, tensors["degraded"], tensors["pose"])
    error = (denoised.float() - clean[:, :, -new:]) / (1 - t).view(-1, 1, 1, 1, 1)
    return error.square().mean()


def finetune(config: FinetuneConfig) -> Path:
    """Train, and write what was trained; returns the file.

    Raises:
        CheckpointError: if base or clips cannot be used.
        FloatingPointError: if the loss is no number any more.
    """
    clips = sorted(config.clips.glob("*.safetensors"))
    if not clips:
        raise CheckpointError(f"{config.clips} holds no clips")
    torch.manual_seed(config.seed)
    chance, generator = random.Random(config.seed), torch.Generator().manual_seed(config.seed)
    model = load_model(config, read_clip(clips[0], config.model))
    trained = add_lora(model, config.rank)
    optimizer = torch.optim.AdamW(trained.values(), config.learning_rate, weight_decay=0.0)
    warmup = torch.optim.lr_scheduler.LinearLR(optimizer, 1 / max(config.warmup_steps, 1), 1.0, config.warmup_steps)
    config.out.mkdir(parents=True, exist_ok=True)
    target, recent = config.out / f"{config.model}_lora.safetensors", 0.0
    for step in range(1, config.steps + 1):
        windows = draw_windows(clips, config, chance)
        moved = Windows({name: tensor.to(config.device) for name, tensor in windows.tensors.items()}, windows.new)
        with torch.autocast(torch.device(config.device).type, torch.bfloat16, enabled=config.bf16):
            loss = loss_of(model, moved, config.shift, generator)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained.values(), config.clip_norm, error_if_nonfinite=False)
        if not torch.isfinite(loss):
            raise FloatingPointError(f"the loss is {loss.item()} at step {step}: a smaller learning_rate may help")
        optimizer.step()
        warmup.step()
        recent += loss.item() / config.report_steps
        if step % config.report_steps == 0:
            print(f"step {step}: loss {recent:.4f}, LoRA {lora_norm(trained):.2e}", flush=True)
            recent = 0.0
        if step % config.save_steps == 0 or step == config.steps:
            save_trained(target, trained, config.rank)
    return target


if __name__ == "__main__":
    print(finetune(parse_run(FinetuneConfig, __doc__ or "")))
