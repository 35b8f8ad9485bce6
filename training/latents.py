"""Latents of all takes, made once with a frozen VAE and audio encoder; windows for LR-A2V and the refiner.

python -m training.latents --data DATA --weights WEIGHTS --out LATENTS [--preset presenter-256] [--device cuda]
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors import safe_open
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
    """What `encode_speech` gives, latents, and a few of the take's frames as references.

    Frames go to the device of the VAE; the result is on the CPU.
    """
    device = vae.latent_mean.device
    spoken = encode_speech(take, audio)
    count = len(spoken["tokens"])
    frames = np.array(take.frames[:count])
    motion = spoken["motion"].numpy()
    rng = np.random.default_rng(len(take.name))
    picks = rng.integers(count, size=REFERENCES_PER_TAKE)

    def groups(pixels: np.ndarray) -> Tensor:
        parts = [vae.encode_groups(to_tensor(pixels[i : i + 80], device)[None])[0] for i in range(0, count, 80)]
        return torch.cat(parts, dim=1).half().cpu()

    def singles(pixels: np.ndarray) -> Tensor:
        parts = [vae.encode(to_tensor(pixels[i : i + 1], device)[None])[0] for i in picks]
        return torch.cat(parts, dim=1).half().cpu()

    half = half_size(frames)
    return spoken | {
        "lr": groups(half),
        "hr": groups(frames),
        "reference_lr": singles(half),
        "reference_hr": singles(frames),
        "reference_motion": torch.from_numpy(motion[picks]),
        "reference_keypoints": torch.from_numpy(take.keypoints[picks]),
    }


def encode_speech(take: TakeFrames, audio: AudioEncoder) -> dict[str, Tensor]:
    """Audio tokens, motion, closure and keypoints of a take, whole latents: what needs no pictures; on the CPU."""
    count = len(take.keypoints) // 4 * 4
    rate, samples = wavfile.read(take.path.with_suffix(".wav"))
    if rate != 16_000:
        raise ValueError(f"{take.name}: sound must be 16 kHz, got {rate}")
    samples = samples.astype(np.float32) / (32768 if samples.dtype == np.int16 else 1)
    with np.load(take.path.with_suffix(".npz")) as arrays:
        motion, closure = (torch.from_numpy(arrays[name][:count].astype(np.float32)) for name in ("motion", "closure"))
    device = next(audio.parameters()).device
    return {
        "tokens": audio.encode(torch.from_numpy(samples).to(device))[:count].half().cpu(),
        "motion": motion,
        "closure": closure,
        "keypoints": torch.from_numpy(take.keypoints[:count].copy()),
    }


def encode_reference(picture: Path, vae: CausalVAE, keypoints: Tensor) -> dict[str, Tensor]:
    """The neutral picture of a presenter; keypoints [143, 3] of it."""
    pixels = np.array(Image.open(picture).convert("RGB"))[None]
    device = vae.latent_mean.device
    keypoints = keypoints.clone()
    keypoints[BACKGROUND] = background_points(to_tensor(pixels)[0], keypoints[:PERSON_POINTS])
    return {
        "lr": vae.encode(to_tensor(half_size(pixels), device)[None])[0].half().cpu(),
        "hr": vae.encode(to_tensor(pixels, device)[None])[0].half().cpu(),
        "keypoints": keypoints,
    }


def to_tensor(pixels: np.ndarray, device: torch.device | str = "cpu") -> Tensor:
    """uint8 [..., H, W, 3] → float [..., 3, H, W] in 0 … 1; bytes travel, numbers are made on the device."""
    return torch.from_numpy(np.ascontiguousarray(pixels)).to(device).movedim(-1, -3).float() / 255


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
        return len(self.tensors["tokens"]) // 4


def load_latents(
    folder: Path, heldout: bool, device: str = "cpu", with_pictures: bool = True
) -> list[TakeLatents]:
    """All takes of a latents folder, their tensors on a device: windows are then cut where they are used.

    With the bases of `training.animated` where they were made; with takes of keypoints alone only if
    `with_pictures` is False.

    Raises:
        ValueError: if there are none.
    """
    references = {path.stem: load_file(path, device) for path in sorted((folder / "references").glob("*.safetensors"))}
    found = []
    for path in sorted(folder.glob("*.safetensors")):
        if ("_heldout_" in path.name) != heldout:
            continue
        with safe_open(path, "pt") as stored:
            if with_pictures and "lr" not in stored.keys():
                continue
        about = json.loads(path.with_suffix(".json").read_text())
        tensors = load_file(path, device)
        animated = folder / "animated" / path.name
        if animated.is_file():
            tensors |= load_file(animated, device)
        found.append(
            TakeLatents(path.stem, about["presenter"], about["prompt"], tensors, references[about["presenter"]])
        )
    if not found:
        raise ValueError(f"{folder} holds no {'held-out' if heldout else 'training'} latents")
    return found


class Streams:
    """Where a batch of streams is in the takes: each goes on where its last window ended, as it does when it serves.

    What a model made of one window is then there as the motion latents of the next, so that it learns on what it
    will be given and not on the truth, which it will not have.

    Attributes:
        takes: int64 [size], on the host. next: int64 [size], first new latent of each stream's next window.
        is_fresh: bool [size]; streams that were just put somewhere else, whose last window is not there.
    """

    def __init__(self, counts: np.ndarray, size: int, motion_latents: int, restart_share: float) -> None:
        self.counts, self.motion_latents, self.restart_share = counts, motion_latents, restart_share
        self.takes, self.next = np.zeros(size, np.int64), np.zeros(size, np.int64)
        self.is_fresh = np.ones(size, bool)

    def place(self, rng: np.random.Generator, new: int) -> None:
        """Put fresh streams, a share of the others, and those whose take has no `new` latents left, anywhere else."""
        self.is_fresh |= self.next + new > self.counts[self.takes]
        self.is_fresh |= rng.random(len(self.takes)) < self.restart_share
        takes = rng.integers(len(self.counts), size=len(self.takes))
        starts = rng.integers(self.motion_latents, self.counts[takes] - new + 1)
        self.takes = np.where(self.is_fresh, takes, self.takes)
        self.next = np.where(self.is_fresh, starts, self.next)

    def advance(self, new: int) -> None:
        """Go on behind a window of `new` latents."""
        self.next = self.next + new
        self.is_fresh[:] = False


class TakeBank:
    """Takes one behind another, one tensor a kind, so that the windows of a batch are cut by one index.

    N takes, L latents in all, F = 4L frames, P presenters, R further references a take; all on one device.

    Attributes:
        latents: "lr" and "hr", float16 [L, C, h, w]; "base_lr", "base_hr" and "shown_lr" where the animator's bases
            were made: see `training.animated`. None of them with takes of keypoints alone.
        seen: [F, 143, 3], keypoints as the pose estimator reads them; the exact ones where there are no bases.
        tokens, motion, keypoints, closure: [F, …].
        references: "lr", "hr" [P, C, h, w] and "keypoints" [P, 143, 3] of the presenters' neutral pictures.
        further: "lr", "hr" [N, R, C, h, w], "motion" [N, R, M] and "keypoints" [N, R, 143, 3] of other frames.
        presenters: int64 [N], index of each take's presenter.
        counts: int64 [N], latents of each take, on the host.
    """

    def __init__(self, takes: Sequence[TakeLatents]) -> None:
        names = sorted({take.presenter for take in takes})
        of_presenter = {take.presenter: take.reference for take in takes}
        self.device = takes[0].tensors["lr"].device
        self.counts = np.array([take.latents for take in takes])
        self.starts = torch.from_numpy(np.cumsum(self.counts) - self.counts).to(self.device)
        self.presenters = torch.tensor([names.index(take.presenter) for take in takes], device=self.device)
        self.prompts = [take.prompt for take in takes]

        def behind(name: str, dim: int = 0) -> Tensor:
            return torch.cat([take.tensors[name] for take in takes], dim=dim)

        def stacked(name: str) -> Tensor:
            return torch.stack([take.tensors[name] for take in takes])

        common = set.intersection(*(set(take.tensors) for take in takes))
        kinds = [kind for kind in ("lr", "hr", "base_lr", "base_hr", "shown_lr") if kind in common]
        self.latents: dict[str, Tensor] = {kind: behind(kind, 1).transpose(0, 1).contiguous() for kind in kinds}
        self.tokens, self.motion, self.keypoints, self.closure = (
            behind(name) for name in ("tokens", "motion", "keypoints", "closure")
        )
        self.seen = behind("seen") if "seen" in common else self.keypoints
        frames = [4 * len(latents) for latents in self.latents.values()]
        frames += [len(values) for values in (self.tokens, self.motion, self.keypoints, self.closure)]
        if set(frames) != {4 * int(self.counts.sum())}:
            raise ValueError(f"latents, tokens, motion, keypoints, closure are of {frames} frames")
        self.references = {kind: torch.stack([of_presenter[n][kind] for n in names]) for kind in ("lr", "hr")}
        self.references = {kind: reference[:, :, 0] for kind, reference in self.references.items()}
        self.references["keypoints"] = torch.stack([of_presenter[name]["keypoints"] for name in names])
        self.further: dict[str, Tensor] = {}
        if kinds:
            self.further |= {kind: stacked(f"reference_{kind}").transpose(1, 2) for kind in ("lr", "hr")}
            self.further |= {kind: stacked(f"reference_{kind}") for kind in ("motion", "keypoints")}

    def index(self, streams: Streams, before: int) -> tuple[Tensor, Tensor]:
        """Takes and first latents, int64 [size] each, of the streams' windows with `before` latents in front."""
        index = torch.from_numpy(np.stack([streams.takes, streams.next - before])).to(self.device)
        return index[0], index[1]

    def windows(self, values: Tensor, takes: Tensor, first: Tensor, count: int) -> Tensor:
        """Values [L or F, …] of latents or frames → float32 [B, count or 4·count, …] from latents `first` on."""
        scale = len(values) // len(self.latents["lr"])
        steps = torch.arange(scale * count, device=self.device)
        return values[(scale * (self.starts[takes] + first))[:, None] + steps].float()

    def base(self, kind: str, takes: Tensor, first: Tensor, count: int) -> Tensor | None:
        """Bases "lr" or "hr", float32 [B, C, count, h, w], of latents `first` on; None where they were not made."""
        if f"base_{kind}" not in self.latents:
            return None
        return self.windows(self.latents[f"base_{kind}"], takes, first, count).transpose(1, 2)

    def audio_windows(self, takes: Tensor, first: Tensor, count: int, window: int) -> Tensor:
        """Tokens → [B, count, window, D] for latents first, first + 1, …; the first token of a take repeats."""
        ends = 4 * (first[:, None] + torch.arange(count, device=self.device) + 1)
        index = (ends[..., None] - window + torch.arange(window, device=self.device)).clamp_min(0)
        return self.tokens[4 * self.starts[takes][:, None, None] + index].float()

    def reference(self, kind: str, takes: Tensor, pick: Tensor) -> Tensor:
        """Float32 [B, …]: the presenter's neutral picture where pick [B] is -1, else that further reference."""
        neutral, further = self.references[kind][self.presenters[takes]], self.further[kind][takes, pick]
        return torch.where(pick.view(-1, *[1] * (neutral.ndim - 1)) < 0, neutral, further).float()

    def pick(self, rng: np.random.Generator, size: int, neutral: float) -> Tensor:
        """Which reference each window has, int64 [size]: -1, the neutral one, with a share of `neutral`."""
        picks = rng.integers(self.further["lr"].shape[1], size=size)
        return torch.from_numpy(np.where(rng.random(size) < neutral, -1, picks)).to(self.device)


def own_motion_latents(made: Tensor | None, truth: Tensor, is_fresh: Tensor) -> Tensor:
    """Motion latents [B, C, m, h, w]: what the model made of the window before; the truth where there was none."""
    if made is None or not truth.shape[2]:
        return truth
    return torch.where(is_fresh[:, None, None, None, None], truth, made[:, :, -truth.shape[2] :])


def shaken(motion_latents: Tensor, deviation: float) -> Tensor:
    """Motion latents [B, …] with noise of up to a deviation in 60 % of the rows."""
    if not deviation:
        return motion_latents
    share = torch.rand(len(motion_latents), 1, 1, 1, 1, device=motion_latents.device)
    return motion_latents + deviation * share * (torch.rand_like(share) < 0.6) * torch.randn_like(motion_latents)


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
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    config = preset(arguments.preset)
    vae, audio = CausalVAE(config.vae).eval(), AudioEncoder(config.audio).eval()
    load_component(arguments.weights, "vae", vae)
    load_component(arguments.weights, "audio", audio)
    vae.to(arguments.device)
    audio.to(arguments.device)
    for folder in ("references", "statistics"):
        (arguments.out / folder).mkdir(parents=True, exist_ok=True)
    save_file({"weights": channel_weights(vae).cpu()}, arguments.out / "statistics" / "channels.safetensors")
    for picture in sorted(arguments.data.glob("**/reference_*.png")):
        with np.load(picture.with_suffix(".npz")) as arrays:
            keypoints = torch.from_numpy(arrays["keypoints"].astype(np.float32)).reshape(-1, 143, 3)[0]
        presenter = picture.stem.split("_")[1]
        target = arguments.out / "references" / f"{presenter}.safetensors"
        save_file(encode_reference(picture, vae, keypoints), target)
    for take in tqdm([take for heldout in (True, False) for take in takes(arguments.data, heldout, False)]):
        target = arguments.out / f"{take.name}.safetensors"
        if target.is_file():
            continue
        about = json.loads(take.path.with_suffix(".json").read_text())
        target.with_suffix(".json").write_text(json.dumps({key: about[key] for key in ("presenter", "prompt")}))
        encoded = encode_take(take, vae, audio) if take.has_pictures else encode_speech(take, audio)
        save_file({name: tensor.contiguous() for name, tensor in encoded.items()}, target)


if __name__ == "__main__":
    main()
