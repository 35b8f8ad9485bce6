"""How many sessions at 25 fps a device can hold, one after the other and in batches.

    python -m benchmarks.bench_sessions [--preset P] [--device D] [--n N] [--precision fp32|bf16]
                                        [--largest B] [--seconds S] [--out NAME]

On a CUDA device the default is `presenter-512`, on a CPU `tiny`. Weights are random: times do not depend on them.

"In turn" runs whole chunks of a stream as `AvatarPipeline.step` does, one session at a time. "Batch B" runs the models
of a steady chunk on B sessions at once (LR steps with guidance, animator, LR decode, keypoints, low-pass, pose tokens,
refiner, decode, I420), on inputs of random numbers; what each session does alone on the way (log-mel, motion plan) is
not in it. Batches double until one takes longer than a chunk lasts, or memory ends.

Sessions are batch · ⌊duration of a chunk / time of a batch⌋: every session gets its chunk in time, with no headroom.
`--out NAME` writes NAME.json to `--folder`, by default benchmarks/results.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.bench_chunk import LATENT_S, chosen_preset, make_pipeline, time_stream
from benchmarks.timing import (
    RESULTS,
    describe_machine,
    peak_memory_mb,
    print_machine,
    reset_peak_memory,
    time_call,
    write_results,
)
from kernels.low_pass import low_pass_noise
from kernels.rgb_to_i420 import rgb_to_i420
from models.configs import Preset
from models.pipeline import AvatarPipeline
from models.pose import KEYPOINTS, pose_tokens
from models.presets import PRESETS
from models.refiner import upsample_latents
from models.sampling import euler, guided
from models.vae import DecoderCache

FRAMES_A_LATENT = 4


@dataclass(frozen=True)
class BatchInputs:
    """What B sessions bring to a steady chunk of n latents, after m motion latents."""

    text: Tensor  # [B, Lt, text_width]
    audio: Tensor  # [B, 1, 1 + m + n, audio_window, audio_width]
    heard: Tensor  # [B, token_window - 1 + 4n, audio_width], what the animator hears
    plan: Tensor | None  # [B, 1 + m + n, 4, motion_dim]
    lr_prefix: Tensor  # [B, C, 1 + m, h, w]
    hr_prefix: Tensor  # [B, C, 1 + m, 2h, 2w]
    lr_noise: Tensor  # [B, C, n, h, w]
    hr_noise: Tensor  # [B, C, n, 2h, 2w]
    lr_picture: Tensor  # [B, 3, 8h, 8w]
    hr_picture: Tensor  # [B, 3, 16h, 16w]
    keypoints: Tensor  # [B, 4 (1 + m), 143, 3] of the prefix
    seeds: Tensor  # [B] int64
    lr_cache: DecoderCache
    hr_cache: DecoderCache


def make_inputs(config: Preset, batch: int, device: torch.device) -> BatchInputs:
    """Random ones of the preset's shapes."""
    m, n, channels = config.motion_latents, config.chunk_latents, config.lr_a2v.latent_channels
    (lr_h, lr_w), (hr_h, hr_w) = config.lr_latent_size, config.hr_latent_size
    token_window = config.animator.token_window if config.animator is not None else 1
    generator = torch.Generator(device).manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(batch, *shape, generator=generator, device=device)

    def cache(height: int, width: int) -> DecoderCache:
        return tuple(normal(config.vae.trunk_width, height, width) for _ in range(config.vae.trunk_blocks))

    motion_dim = config.lr_a2v.motion_dim
    return BatchInputs(
        text=normal(config.text.tokens, config.text.width),
        audio=normal(1, 1 + m + n, config.lr_a2v.audio_window, config.audio.width),
        heard=normal(token_window - 1 + FRAMES_A_LATENT * n, config.audio.width),
        plan=normal(1 + m + n, FRAMES_A_LATENT, motion_dim) if motion_dim else None,
        lr_prefix=normal(channels, 1 + m, lr_h, lr_w),
        hr_prefix=normal(channels, 1 + m, hr_h, hr_w),
        lr_noise=normal(channels, n, lr_h, lr_w),
        hr_noise=normal(channels, n, hr_h, hr_w),
        lr_picture=normal(3, *config.lr_size).clamp(0, 1),
        hr_picture=normal(3, *config.hr_size).clamp(0, 1),
        keypoints=normal(FRAMES_A_LATENT * (1 + m), KEYPOINTS, 3).clamp(0, 1),
        seeds=torch.arange(batch, device=device),
        lr_cache=cache(lr_h, lr_w),
        hr_cache=cache(hr_h, hr_w),
    )


def batched_chunk(pipeline: AvatarPipeline, inputs: BatchInputs) -> Tensor:
    """A steady chunk of B sessions: I420 planes uint8 [B · 4n, H·3/2, W]."""
    config = pipeline.preset
    with torch.autocast(pipeline.device.type, torch.bfloat16, enabled=pipeline.is_bf16):
        lr_latents = _lr_latents(pipeline, inputs)
        lr_frames, _ = pipeline.vae.decode_chunk(lr_latents, inputs.lr_cache)
    frames = lr_frames.flatten(0, 1).float().clamp(0, 1)
    keypoints = pipeline.pose_estimator(frames).unflatten(0, (len(lr_latents), -1))
    with torch.autocast(pipeline.device.type, torch.bfloat16, enabled=pipeline.is_bf16):
        hr_latents = _hr_latents(pipeline, inputs, lr_latents, keypoints)
        hr_frames, _ = pipeline.vae.decode_chunk(hr_latents, inputs.hr_cache)
    assert hr_frames.shape[1] == FRAMES_A_LATENT * config.chunk_latents
    return rgb_to_i420(hr_frames.flatten(0, 1).float())


def _windowed(prefix: Tensor, latents: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """Prefix and latents at time t [B] as a window, and its timesteps [B, 1 + m + n]."""
    clean = t.new_ones(len(t), prefix.shape[2])
    return torch.cat([prefix, latents], dim=2), torch.cat([clean, t[:, None].expand(-1, latents.shape[2])], dim=1)


def _moved(pipeline: AvatarPipeline, picture: Tensor, inputs: BatchInputs, keypoints: Tensor) -> Tensor | None:
    if pipeline.animator is None:
        return None
    with torch.autocast(pipeline.device.type, enabled=False):
        moved = pipeline.animator.move(picture, inputs.keypoints[:, 0], keypoints)
    return pipeline.vae.encode_groups(moved)


def _lr_latents(pipeline: AvatarPipeline, inputs: BatchInputs) -> Tensor:
    sampling, new = pipeline.preset.sampling, inputs.lr_noise.shape[2]
    base = None
    if pipeline.animator is not None and inputs.plan is not None:
        with torch.autocast(pipeline.device.type, enabled=False):
            plan = inputs.plan[:, -new:].flatten(1, 2)
            keypoints = pipeline.animator.points(inputs.heard, plan, inputs.text, inputs.keypoints[:, 0])
        base = _moved(pipeline, inputs.lr_picture, inputs, keypoints)

    def denoise(latents: Tensor, t: Tensor) -> Tensor:
        window, timesteps = _windowed(inputs.lr_prefix, latents, t)
        call = (window, timesteps, new, inputs.text)
        denoised = pipeline.lr_a2v(*call, inputs.audio, inputs.plan, base=base)
        if sampling.audio_guidance == 1:
            return denoised
        without = pipeline.lr_a2v(*call, torch.zeros_like(inputs.audio), inputs.plan, base=base)
        return guided(denoised, without, sampling.audio_guidance)

    return euler(denoise, inputs.lr_noise, sampling.lr_steps)


def _hr_latents(pipeline: AvatarPipeline, inputs: BatchInputs, lr_latents: Tensor, keypoints: Tensor) -> Tensor:
    config, new = pipeline.preset, inputs.hr_noise.shape[2]
    latents = torch.cat([inputs.lr_prefix[:, :, 1:].to(lr_latents.dtype), lr_latents], dim=2)
    degraded = low_pass_noise(latents.float(), config.low_pass_sigma, config.degradation_noise, inputs.seeds)
    degraded = F.pad(upsample_latents(degraded), (0, 0, 0, 0, 1, 0))
    tokens = pose_tokens(torch.cat([inputs.keypoints, keypoints], dim=1), *config.lr_latent_size)
    base = _moved(pipeline, inputs.hr_picture, inputs, keypoints)

    def denoise(latents: Tensor, t: Tensor) -> Tensor:
        window, timesteps = _windowed(inputs.hr_prefix, latents, t)
        return pipeline.refiner(window, timesteps, new, degraded, tokens, base)

    return euler(denoise, inputs.hr_noise, config.sampling.refiner_steps)


def bench_batches(pipeline: AvatarPipeline, largest: int, seconds: float) -> list[dict[str, Any]]:
    """A row a batch size."""
    device, rows = pipeline.device, []
    duration_ms = pipeline.preset.chunk_latents * LATENT_S * 1e3
    batch = 1
    while batch <= largest:
        reset_peak_memory(device)
        try:
            with torch.inference_mode():
                inputs = make_inputs(pipeline.preset, batch, device)
                ms = time_call(lambda inputs=inputs: batched_chunk(pipeline, inputs), device, seconds)  # type: ignore[misc]
        except torch.OutOfMemoryError:
            print(f"batch {batch}: not enough memory")
            break
        rows.append(row_of(batch, ms, duration_ms) | {"peak_memory_mb": peak_memory_mb(device)})
        print_row(rows[-1])
        if ms > duration_ms:
            break
        batch *= 2
    return rows


def row_of(batch: int, ms: float, duration_ms: float) -> dict[str, Any]:
    """What a time says about sessions."""
    return {
        "batch": batch,
        "ms": ms,
        "ms_a_session": ms / batch,
        "rtf_a_session": ms / batch / duration_ms,
        "sessions": batch * int(duration_ms // ms),
    }


def print_row(row: dict[str, Any]) -> None:
    print(
        f"  batch {row['batch']:<4} {row['ms']:>10.2f} ms {row['ms_a_session']:>10.2f} ms a session"
        f"  rtf {row['rtf_a_session']:>7.4f}  sessions at 25 fps: {row['sessions']}",
        flush=True,
    )


def parse(argv: list[str] | None) -> argparse.Namespace:
    has_cuda = torch.cuda.is_available()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=list(PRESETS), default="presenter-512" if has_cuda else "tiny")
    parser.add_argument("--device", default="cuda" if has_cuda else "cpu")
    parser.add_argument("--n", type=int, help="new latents a chunk, 1-6 (default: the preset's)")
    parser.add_argument("--precision", choices=("fp32", "bf16"), help="default: bf16 on CUDA, fp32 on a CPU")
    parser.add_argument("--largest", type=int, default=128 if has_cuda else 2, help="largest batch that is tried")
    parser.add_argument("--seconds", type=float, default=1.0, help="time spent on each batch size")
    parser.add_argument("--chunks", type=int, default=6, help="of the stream that runs in turn, at least 3")
    parser.add_argument("--out", metavar="NAME", help="name of the JSON file")
    parser.add_argument("--folder", type=Path, default=RESULTS, help="where it goes")
    return parser.parse_args(argv, argparse.Namespace(m=None, steps=None, refiner=None))


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Run the benchmark and print its table; returns what is written."""
    arguments = parse(argv)
    device = torch.device(arguments.device)
    precision = arguments.precision or ("bf16" if device.type == "cuda" else "fp32")
    config = chosen_preset(arguments)
    machine = describe_machine(device)
    print_machine(machine, precision)
    pipeline = make_pipeline(config, device, precision)
    duration_ms = config.chunk_latents * LATENT_S * 1e3
    print(f"{config.name}, a chunk of {duration_ms:.0f} ms")
    time_stream(pipeline, 3)  # kernels are compiled
    in_turn = row_of(1, time_stream(pipeline, arguments.chunks).chunk_ms, duration_ms)
    print("in turn, with everything:")
    print_row(in_turn)
    print("batches of the models:")
    rows = bench_batches(pipeline, arguments.largest, arguments.seconds)
    most = max((row["sessions"] for row in rows), default=0)
    print(f"sessions at 25 fps on this device: {in_turn['sessions']} in turn, {most} in batches")
    result = {
        "machine": machine,
        "preset": config.name,
        "precision": precision,
        "chunk_ms": duration_ms,
        "in_turn": in_turn,
        "batches": rows,
        "sessions": {"in_turn": in_turn["sessions"], "in_batches": most},
    }
    if arguments.out:
        write_results(arguments.out, result, arguments.folder)
    return result


if __name__ == "__main__":
    main()
