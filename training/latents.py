"""Latents of all takes, made once with a frozen VAE and audio encoder; windows for LR-A2V and the refiner.

python -m training.latents data=DATA weights=WEIGHTS out=LATENTS [preset=presenter-256]
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from scipy.io import wavfile
from torch import Tensor
from tqdm import tqdm

from models.checkpoints import load_component
from models.conditions import AudioEncoder
from models.pose import BACKGROUND, INNER_LIPS, OUTER_LIPS, PERSON_POINTS, background_points
from models.presets import preset
from models.vae import CausalVAE
from training.frames import TakeFrames, half_size, takes

REFERENCES_PER_TAKE = 3


def encode_take(take: TakeFrames, vae: CausalVAE, audio: AudioEncoder) -> dict[str, Tensor]:
    """Latents, audio tokens, motion and keypoints of a take, and of a few of its frames as references."""
    count = len(take.frames) // 4 * 4
    frames = np.array(take.frames[:count])
    rate, samples = wavfile.read(take.path.with_suffix(".wav"))
    if rate != 16_000:
        raise ValueError(f"{take.name}: sound must be 16 kHz, got {rate}")
    samples = samples.astype(np.float32) / (32768 if samples.dtype == np.int16 else 1)
    with np.load(take.path.with_suffix(".npz")) as arrays:
        motion, closure = (arrays[name][:count].astype(np.float32) for name in ("motion", "closure"))
    rng = np.random.default_rng(len(take.name))
    picks = rng.integers(count, size=REFERENCES_PER_TAKE)

    def groups(pixels: np.ndarray) -> Tensor:
        parts = [vae.encode_groups(to_tensor(pixels[i : i + 80])[None])[0] for i in range(0, count, 80)]
        return torch.cat(parts, dim=1).half()

    def singles(pixels: np.ndarray) -> Tensor:
        return torch.cat([vae.encode(to_tensor(pixels[i : i + 1])[None])[0] for i in picks], dim=1).half()

    half = half_size(frames)
    return {
        "lr": groups(half),
        "hr": groups(frames),
        "reference_lr": singles(half),
        "reference_hr": singles(frames),
        "reference_motion": torch.from_numpy(motion[picks]),
        "reference_keypoints": torch.from_numpy(take.keypoints[picks]),
        "tokens": audio.encode(torch.from_numpy(samples))[:count].half(),
        "motion": torch.from_numpy(motion),
        "closure": torch.from_numpy(closure),
        "keypoints": torch.from_numpy(take.keypoints[:count].copy()),
    }


def encode_reference(picture: Path, vae: CausalVAE, keypoints: Tensor) -> dict[str, Tensor]:
    """The neutral picture of a presenter; keypoints [143, 3] of it."""
    pixels = np.array(Image.open(picture).convert("RGB"))[None]
    keypoints = keypoints.clone()
    keypoints[BACKGROUND] = background_points(to_tensor(pixels)[0], keypoints[:PERSON_POINTS])
    return {
        "lr": vae.encode(to_tensor(half_size(pixels))[None])[0].half(),
        "hr": vae.encode(to_tensor(pixels)[None])[0].half(),
        "keypoints": keypoints,
    }


def to_tensor(pixels: np.ndarray) -> Tensor:
    """uint8 [T, H, W, 3] → float [T, 3, H, W] in 0 … 1."""
    return torch.from_numpy(np.ascontiguousarray(pixels)).permute(0, 3, 1, 2).float() / 255


@torch.no_grad()
def channel_weights(vae: CausalVAE) -> Tensor:
    """How much each latent channel shows in the picture, [C], mean 1: from pixel energies of unit changes."""
    energy = vae.decoder.linear.weight.square().sum((1, 2, 3)) * vae.latent_std.square()
    weights = energy.sqrt()
    return weights / weights.mean()


def load_channel_weights(folder: Path, device: str = "cpu") -> Tensor:
    """`channel_weights` of the VAE that a latents folder was made with, [C, 1, 1, 1]."""
    return load_file(folder / "statistics" / "channels.safetensors", device)["weights"][:, None, None, None]


@dataclass
class TakeLatents:
    """One take: tensors of `encode_take`, the presenter's reference, the prompt."""

    name: str
    presenter: str
    prompt: str
    tensors: dict[str, Tensor]
    reference: dict[str, Tensor]

    @property
    def latents(self) -> int:
        return self.tensors["lr"].shape[1]


def load_latents(folder: Path, heldout: bool, device: str = "cpu") -> list[TakeLatents]:
    """All takes of a latents folder, their tensors on a device: windows are then cut where they are used.

    Raises:
        ValueError: if there are none.
    """
    references = {path.stem: load_file(path, device) for path in sorted((folder / "references").glob("*.safetensors"))}
    found = []
    for path in sorted(folder.glob("*.safetensors")):
        if ("_heldout_" in path.name) != heldout:
            continue
        about = json.loads(path.with_suffix(".json").read_text())
        found.append(
            TakeLatents(
                path.stem, about["presenter"], about["prompt"], load_file(path, device), references[about["presenter"]]
            )
        )
    if not found:
        raise ValueError(f"{folder} holds no {'held-out' if heldout else 'training'} latents")
    return found


def audio_windows(tokens: Tensor, first: int, count: int, window: int) -> Tensor:
    """Tokens [F, D] of a take → [count, window, D] for latents first, first + 1, …; the first token repeats."""
    ends = 4 * (torch.arange(first, first + count, device=tokens.device) + 1)
    index = ends[:, None] - window + torch.arange(window, device=tokens.device)
    return tokens[index.clamp_min(0)].float()


def region_weights(keypoints: Tensor, points: slice, size: int, radius: float) -> Tensor:
    """Keypoints [4T, 143, 3] → bumps [T, size, size] of height 1 around the mean of some points."""
    centres = keypoints[:, points, :2].mean(1).unflatten(0, (-1, 4)).mean(1) * size
    cells = torch.arange(size, device=keypoints.device) + 0.5
    x = torch.exp(-((cells - centres[:, :1]) ** 2) / (2 * radius**2))
    y = torch.exp(-((cells - centres[:, 1:]) ** 2) / (2 * (0.75 * radius) ** 2))
    return y[:, :, None] * x[:, None, :]


LIPS = slice(OUTER_LIPS.start, INNER_LIPS.stop)


def aperture(keypoints: Tensor) -> Tensor:
    """Keypoints [..., 143, 3] → lip aperture [...], in parts of the picture's height."""
    inner = keypoints[..., INNER_LIPS, 1]
    upper, lower = inner[..., :5], inner[..., 5:].flip(-1)
    return (lower - upper)[..., 1:4].mean(-1)


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description="Encode takes into latents.")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--weights", type=Path, required=True, help="folder with vae and audio weights")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--preset", default="presenter-256")
    arguments = parser.parse_args()
    config = preset(arguments.preset)
    vae, audio = CausalVAE(config.vae).eval(), AudioEncoder(config.audio).eval()
    load_component(arguments.weights, "vae", vae)
    load_component(arguments.weights, "audio", audio)
    for folder in ("references", "statistics"):
        (arguments.out / folder).mkdir(parents=True, exist_ok=True)
    save_file({"weights": channel_weights(vae)}, arguments.out / "statistics" / "channels.safetensors")
    for picture in sorted(arguments.data.glob("**/reference_*.png")):
        with np.load(picture.with_suffix(".npz")) as arrays:
            keypoints = torch.from_numpy(arrays["keypoints"].astype(np.float32)).reshape(-1, 143, 3)[0]
        presenter = picture.stem.split("_")[1]
        target = arguments.out / "references" / f"{presenter}.safetensors"
        save_file(encode_reference(picture, vae, keypoints), target)
    for take in tqdm(takes(arguments.data, heldout=True) + takes(arguments.data, heldout=False)):
        target = arguments.out / f"{take.name}.safetensors"
        if target.is_file():
            continue
        about = json.loads(take.path.with_suffix(".json").read_text())
        target.with_suffix(".json").write_text(json.dumps({key: about[key] for key in ("presenter", "prompt")}))
        tensors = {name: tensor.contiguous() for name, tensor in encode_take(take, vae, audio).items()}
        save_file(tensors, target)


if __name__ == "__main__":
    main()
