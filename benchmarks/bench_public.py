"""What a chunk of the public families costs at their published sizes: counted anywhere, measured on a CUDA device.

    python -m benchmarks.bench_public --family lite --device cuda --folder OUT --out NAME

Counting needs no weights: every model stands on the meta device. The real-time factor that follows from it, operations
over what a device reaches, is derived and says so; a figure of `measured` was measured, with random weights. Without
CUDA only the counting is done.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from models.flops import count_flops
from models.fp8 import use_fp8
from models.graphs import CudaGraphs
from models.public.chunk_loop import AutoEncoder, ChunkShape
from models.public.flashhead import FlashHead, FlashHeadConfig
from models.public.ltx_vae import LTXVAE
from models.public.pipeline import FlashHeadPipeline
from models.public.taehv import TAEHV
from models.public.wan_vae import WanVAE
from models.public.wav2vec2 import RING_SAMPLES, AudioFrontEnd, empty_model

SIDE = 512
PEAK_TFLOPS, SHARE = {"H200": 989.0, "RTX 4090": 165.0}, 0.5  # dense bf16 by data sheet, and a guess of what is reached
PRO = FlashHeadConfig(1536, 8960, 32, 16, 4096, 256, 12, 30, (1, 2, 2), (4, 8, 8))
LITE = FlashHeadConfig(1536, 8960, 256, 128, 4096, 256, 12, 30, (1, 1, 1), (8, 32, 32))
WAV2VEC2 = json.dumps({"model_type": "wav2vec2", "do_stable_layer_norm": False})  # all else by transformers' defaults


@dataclass(frozen=True)
class PublicFamily:
    """One of them at its published size."""

    config: FlashHeadConfig
    coder: type[WanVAE] | type[TAEHV] | type[LTXVAE]
    steps: int

    @property
    def shape(self) -> ChunkShape:
        return ChunkShape(1 + self.config.frame_stride)

    @property
    def latent_shape(self) -> tuple[int, int, int, int]:
        stride, rows, columns = self.config.vae_stride
        return self.config.out_dim, 1 + (self.shape.frames - 1) // stride, SIDE // rows, SIDE // columns


FAMILIES = {
    "pro": PublicFamily(PRO, WanVAE, 4),
    "lite": PublicFamily(LITE, LTXVAE, 4),
    "leaptalk": PublicFamily(PRO, TAEHV, 1),
    "leaptalk-wan": PublicFamily(PRO, WanVAE, 1),
}


def count(family: PublicFamily) -> dict[str, Any]:
    """Operations of a chunk by stage, bytes of weights, and what follows for a device; nothing is computed."""
    with torch.device("meta"):
        denoiser, coder = FlashHead(family.config).eval(), cast(nn.Module, family.coder()).eval()
        front_end = AudioFrontEnd(empty_model(WAV2VEC2))
        latents = torch.empty(1, *family.latent_shape)
        windows = torch.empty(1, family.shape.frames, 5, family.config.audio_layers, family.config.audio_width)
        rings, times = torch.empty(1, RING_SAMPLES), torch.empty(1)
        motion = torch.empty(1, 3, family.shape.motion_frames, SIDE, SIDE)
    coder = coder.to("meta")  # its constants as well
    both = cast(AutoEncoder, coder)
    with torch.inference_mode():
        heard = denoiser.hear(windows)
        flops = {
            "audio": count_flops(lambda: front_end.hear(rings, family.shape.frames)),
            "sound to keys and values": count_flops(lambda: denoiser.hear(windows)),
            "denoise": family.steps * count_flops(lambda: denoiser(latents, times, latents, heard)),
            "decode": count_flops(lambda: both.decode(latents)),
            "encode": count_flops(lambda: both.encode(motion)),
        }
    chunk_s = family.shape.new_frames / 25
    total = sum(flops.values())
    weights = 2 * sum(p.numel() for module in (denoiser, coder) for p in module.parameters())
    weights += 4 * sum(p.numel() for p in front_end.model.parameters())
    return {
        "chunk_s": chunk_s,
        "tflop": {stage: round(value / 1e12, 3) for stage, value in flops.items()} | {"all": round(total / 1e12, 3)},
        "weights_gib": round(weights / 2**30, 2),
        "weight_bytes_read_a_chunk_gib": round((family.steps * 2 * _size(denoiser) + 4 * _size(coder)) / 2**30, 2),
        "derived_rtf": {name: round(total / (SHARE * peak * 1e12) / chunk_s, 3) for name, peak in PEAK_TFLOPS.items()},
        "derived_from": f"operations over {SHARE:.0%} of the dense bf16 peak of the data sheet; not measured",
    }


def _size(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def measure(family: PublicFamily, device: torch.device, has_graphs: bool, has_fp8: bool, chunks: int) -> dict[str, Any]:
    """Real-time factor, first chunk and memory with random weights in bf16."""
    torch.manual_seed(0)
    with torch.device(device):
        denoiser, coder = FlashHead(family.config), cast(nn.Module, family.coder())
        front_end = AudioFrontEnd(empty_model(WAV2VEC2).to_empty(device=device))
    for parameter in front_end.model.parameters():
        nn.init.normal_(parameter, std=0.02)
    denoiser, coder = (module.to(torch.bfloat16).eval().requires_grad_(False) for module in (denoiser, coder))
    if has_fp8:
        use_fp8(denoiser)
    graphs = CudaGraphs() if has_graphs else None
    pipeline = FlashHeadPipeline(
        denoiser, cast(AutoEncoder, coder), front_end, (SIDE, SIDE), is_bridge=family.steps == 1, graphs=graphs
    )
    state = pipeline.start(torch.full((3, SIDE, SIDE), 0.5))
    times_s, stage_ms = [], {}
    for _ in range(chunks + 3):
        samples: Tensor = torch.randn(pipeline.fixed_latents * 2560) * 0.1
        began_s = time.perf_counter()
        _, state, stage_ms = pipeline.step(samples, state)
        torch.cuda.synchronize(device)
        times_s.append(time.perf_counter() - began_s)
    chunk_s = family.shape.new_frames / 25
    steady = sorted(times_s[3:])
    return {
        "rtf": round(steady[len(steady) // 2] / chunk_s, 4),
        "first_chunk_s": round(times_s[0], 3),  # cold: kernels are compiled, graphs captured
        "stage_ms": {stage: round(ms, 1) for stage, ms in stage_ms.items()},
        "memory_gib": round(torch.cuda.max_memory_allocated(device) / 2**30, 2),
        "graphs": has_graphs,
        "fp8": has_fp8,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--family", choices=FAMILIES, default="lite")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--chunks", type=int, default=10, help="that are timed (default: 10)")
    parser.add_argument("--graphs", action="store_true", help="replay the models from CUDA graphs")
    parser.add_argument("--fp8", action="store_true", help="the denoiser's large products in e4m3")
    parser.add_argument("--folder", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--out", default="public")
    options = parser.parse_args()
    family, device = FAMILIES[options.family], torch.device(options.device)
    result: dict[str, Any] = {"family": options.family, "frame": [SIDE, SIDE], "counted": count(family)}
    if device.type == "cuda":
        result["device"] = torch.cuda.get_device_name(device)
        result["measured"] = measure(family, device, options.graphs, options.fp8, options.chunks)
    options.folder.mkdir(parents=True, exist_ok=True)
    (options.folder / f"{options.out}.json").write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
