"""What the animator makes of the references, for all takes: the bases of LR-A2V and refiner, made once.

    python -m training.animated --latents LATENTS --data DATA --weights WEIGHTS [--generated-share 0.5] [--device cuda]

As when it serves: the small reference is moved to planned keypoints; the full one to the keypoints that the pose
estimator reads off decoded small frames, lips and lids as planned. What is planned there is what really happens: the
refiner has to learn to show what it is told. With a trained LR-A2V a share of the takes gets small latents of its
making, so that the refiner learns on what it will be given. LATENTS gets one further file a take.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor
from tqdm import tqdm

from models.animator import Animator, with_planned_features
from models.checkpoints import load_component
from models.conditions import TextEncoder
from models.configs import Preset
from models.lr_a2v import LRA2V
from models.pose import KeypointNet
from models.presets import preset
from models.vae import CausalVAE
from training.frames import half_size
from training.latents import TakeBank, TakeLatents, load_latents, to_tensor

_LATENTS_AT_ONCE = 5  # few enough to stay in the caches


@dataclass
class Still:
    """A presenter at rest: pictures [1, 3, h, w] and [1, 3, 2h, 2w], and the keypoints seen in it, [1, 143, 3]."""

    small: Tensor
    full: Tensor
    keypoints: Tensor


class AnimatedTakes:
    """The frozen models that stand between a take and the bases."""

    def __init__(self, config: Preset, weights: Path, device: str, is_generating: bool = False) -> None:
        if config.animator is None:
            raise ValueError(f"preset {config.name!r} has no animator")
        self.vae, self.text = CausalVAE(config.vae), TextEncoder(config.text)
        self.pose, self.animator = KeypointNet(config.pose), Animator(config.animator)
        self.config, self.lr_a2v = config, LRA2V(config.lr_a2v)
        for name in ("vae", "text", "pose", "animator", *(["lr_a2v"] if is_generating else [])):
            load_component(weights, name, getattr(self, name))
            getattr(self, name).to(device).eval()
        self.device = device

    def still(self, picture: Path) -> Still:
        """What `AvatarPipeline.start` makes of a reference."""
        pixels = np.array(Image.open(picture).convert("RGB"))[None]
        small, full = (to_tensor(frames, self.device) for frames in (half_size(pixels), pixels))
        frames, _ = self.vae.decode_chunk(self.vae.encode(small[:, None]), None)
        return Still(small, full, self.pose(frames[0].clamp(0, 1)))

    def animate(self, take: TakeLatents, still: Still, is_generated: bool) -> dict[str, Tensor]:
        """Bases of a take of T latents.

        Returns:
            `base_lr` [C, T, h, w]; `shown_lr` [C, T, h, w], the small latents that the refiner is given, true or
            generated; `seen` [4T, 143, 3], the keypoints read off them, with true lips and lids; `base_hr`
            [C, T, 2h, 2w].
        """
        base_lr = self._moved(still.small, still, self._planned(take, still))
        shown_lr = self._generated(take, base_lr) if is_generated else take.tensors["lr"]
        bias = still.keypoints - take.reference["keypoints"].to(self.device)  # a plan starts from what is seen at rest
        seen = with_planned_features(self._seen(shown_lr), take.tensors["keypoints"].to(self.device) + bias)
        return {
            "base_lr": base_lr,
            "shown_lr": shown_lr,
            "seen": seen.float().cpu(),
            "base_hr": self._moved(still.full, still, seen),
        }

    def _generated(self, take: TakeLatents, base: Tensor) -> Tensor:
        """Small latents [C, T, h, w] as LR-A2V makes them of the take's sound, chunk by chunk."""
        bank, m = TakeBank([take]), self.config.motion_latents
        text = self.text(self.text.tokenize([take.prompt]).to(self.device))
        reference = take.reference["lr"].float().to(self.device)[None]
        made, past, take_index = [], reference[:, :, :0], torch.zeros(1, dtype=torch.long)
        for first in range(0, take.latents, self.config.chunk_latents):
            new = min(self.config.chunk_latents, take.latents - first)
            start, count = torch.tensor([first - past.shape[2]]), past.shape[2] + new
            audio = bank.audio_windows(take_index, start, count, self.config.lr_a2v.audio_window)
            motion = bank.windows(bank.motion, take_index, start, count).unflatten(1, (-1, 4))
            noise = torch.randn_like(reference.expand(-1, -1, new, -1, -1))
            timesteps = torch.tensor([[1.0] * (count + 1 - new) + [0.0] * new], device=self.device)
            denoised = self.lr_a2v(
                torch.cat([reference, past, noise], dim=2),
                timesteps,
                new,
                text,
                torch.cat([torch.zeros_like(audio[:, :1]), audio], dim=1)[:, None].to(self.device),
                torch.cat([torch.zeros_like(motion[:, :1]), motion], dim=1).to(self.device),
                base=base[None, :, first : first + new].float().to(self.device),
            )
            made.append(denoised)
            past = torch.cat([past, denoised], dim=2)[:, :, -m:]
        return torch.cat(made, dim=2)[0].half().cpu()

    def _planned(self, take: TakeLatents, still: Still) -> Tensor:
        window = self.animator.config.token_window
        tokens = take.tensors["tokens"].float()
        tokens = torch.cat([tokens[:1].expand(window - 1, -1), tokens]).to(self.device)
        text = self.text(self.text.tokenize([take.prompt]).to(self.device))
        motion = take.tensors["motion"].float().to(self.device)
        return self.animator.points(tokens[None], motion[None], text, still.keypoints)[0]

    def _seen(self, lr_latents: Tensor) -> Tensor:
        cache, seen = None, []
        # One latent too many at the start: the decoder takes the first one for a single frame.
        padded = torch.cat([lr_latents[:, :1], lr_latents], dim=1).float().to(self.device)
        for first in range(0, padded.shape[1], _LATENTS_AT_ONCE):
            frames, cache = self.vae.decode_chunk(padded[None, :, first : first + _LATENTS_AT_ONCE], cache)
            seen.append(self.pose(frames[0].clamp(0, 1)))
        return torch.cat(seen)[1:]

    def _moved(self, picture: Tensor, still: Still, keypoints: Tensor) -> Tensor:
        parts = [
            self.vae.encode_groups(self.animator.move(picture, still.keypoints, part[None]))[0]
            for part in keypoints.split(4 * _LATENTS_AT_ONCE)
        ]
        return torch.cat(parts, dim=1).half().cpu()


def all_takes(folder: Path) -> Iterator[TakeLatents]:
    """Takes of a latents folder, held-out ones first."""
    yield from load_latents(folder, heldout=True)
    yield from load_latents(folder, heldout=False)


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description="Make the bases of all takes.")
    parser.add_argument("--latents", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True, help="folder with the reference pictures")
    parser.add_argument("--weights", type=Path, required=True, help="folder with vae, text, pose, animator")
    parser.add_argument("--generated-share", type=float, default=0.0, help="of training takes; needs lr_a2v weights")
    parser.add_argument("--preset", default="presenter-256")
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    share = arguments.generated_share
    models = AnimatedTakes(preset(arguments.preset), arguments.weights, arguments.device, is_generating=share > 0)
    pictures = {path.stem.split("_")[1]: path for path in arguments.data.glob("**/reference_*.png")}
    stills = {name: models.still(picture) for name, picture in pictures.items()}
    (arguments.latents / "animated").mkdir(exist_ok=True)
    for index, take in enumerate(tqdm(list(all_takes(arguments.latents)))):
        target = arguments.latents / "animated" / f"{take.name}.safetensors"
        is_generated = int((index + 1) * share) > int(index * share)
        if is_generated or not target.is_file():
            tensors = models.animate(take, stills[take.presenter], is_generated)
            partial = target.with_suffix(f".{os.getpid()}.partial")
            save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, partial)
            partial.replace(target)


if __name__ == "__main__":
    main()
