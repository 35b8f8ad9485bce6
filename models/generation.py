"""The models of a preset, and a chunk's way through them, for several streams at once."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import ParamSpec, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from kernels.low_pass import low_pass_noise, standard_normal
from models import checkpoints
from models.animator import Animator
from models.conditions import AudioEncoder, TextEncoder
from models.configs import Preset, SamplingConfig
from models.graphs import CudaGraphs
from models.lr_a2v import LRA2V
from models.pose import KeypointNet, PoseEstimator, pose_tokens
from models.refiner import PGRefiner, upsample_latents
from models.sampling import Denoiser, euler, guided
from models.state import ChunkState, join
from models.talking import FRAMES_PER_LATENT
from models.tiny_decoder import TinyDecoder
from models.vae import CausalVAE

P = ParamSpec("P")
Result = TypeVar("Result")


class ChunkModels:
    """The models of one preset on one device; B streams with equally many new and motion latents go together."""

    def __init__(self, preset: Preset, device: torch.device | str = "cpu", is_bf16: bool = False) -> None:
        self.preset = preset
        self.is_bf16 = is_bf16
        self.device = torch.device(device)
        with torch.device(self.device):
            self.vae = CausalVAE(preset.vae)
            self.audio = AudioEncoder(preset.audio)
            self.text = TextEncoder(preset.text)
            self.lr_a2v = LRA2V(preset.lr_a2v)
            self.refiner = PGRefiner(preset.refiner)
            self.pose = KeypointNet(preset.pose)
            self.tiny_decoder = None if preset.tiny_decoder is None else TinyDecoder(preset.tiny_decoder)
            self.animator = None if preset.animator is None else Animator(preset.animator)
        self.frame_decoder = self.vae if self.tiny_decoder is None else self.tiny_decoder
        self.graphs: CudaGraphs | None = None
        self.keeps_prefix = True  # where prefix_causal allows it
        self.pose_estimator: PoseEstimator = self.pose
        self.point_planner: Callable[..., Tensor] | None = None if self.animator is None else self.animator.points
        for component in checkpoints.components(preset):
            getattr(self, component).eval().requires_grad_(False)

    def call(self, function: Callable[P, Result], *arguments: P.args, **named: P.kwargs) -> Result:
        """A model's call; replayed from a CUDA graph where `graphs` are set."""
        return function(*arguments, **named) if self.graphs is None else self.graphs(function, *arguments, **named)

    def encode_text(self, prompt: str) -> Tensor:
        return self.text(self.text.tokenize([prompt]).to(self.device))

    def fast(self) -> AbstractContextManager:
        """What convolutions and matrix products of the large models run under."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.is_bf16)

    @contextmanager
    def timed(self, stage_ms: dict[str, float], stage: str) -> Iterator[None]:
        """Add what a stage takes."""
        started = time.perf_counter()
        yield
        if self.device.type == "cuda":
            torch.cuda.current_stream(self.device).synchronize()
        stage_ms[stage] = stage_ms.get(stage, 0.0) + (time.perf_counter() - started) * 1e3

    def generate_lr(
        self, tokens: Tensor, new: int, planned: Tensor | None, states: list[ChunkState], sampling: SamplingConfig
    ) -> Tensor:
        """Audio tokens [B, context + 4n, D], planned keypoints [B, 4n, 143, 3] → new LR latents [B, C, n, h, w]."""
        reference = join([state.reference.lr_latents for state in states])
        prefix = torch.cat([reference, *_motion(states, "lr_motion")], dim=2)
        motion_latents = prefix.shape[2] - 1
        window_tokens = tokens.unfold(1, self.preset.lr_a2v.audio_window, 1).transpose(2, 3)[:, ::FRAMES_PER_LATENT]
        window_tokens = window_tokens[:, window_tokens.shape[1] - motion_latents - new :]
        audio = F.pad(window_tokens, (0, 0, 0, 0, 1, 0))[:, None]
        plan = None
        if self.preset.lr_a2v.motion_dim:
            rows = self._motion_plan(-FRAMES_PER_LATENT * motion_latents, FRAMES_PER_LATENT * new, states)
            plan = F.pad(rows.unflatten(1, (-1, FRAMES_PER_LATENT)), (0, 0, 0, 0, 1, 0))
        text = join([state.text for state in states])
        pictures = [state.reference.lr_picture for state in states]
        base = None if planned is None else self._moved(pictures, planned, states)
        clean = prefix.shape[2]
        keeps = self.keeps_prefix and self.preset.lr_a2v.transformer.prefix_causal and sampling.lr_steps > 1

        def denoiser(text: Tensor, audio: Tensor) -> Denoiser:
            """The model under one set of conditions."""
            kept = None
            if keeps:
                past = None if plan is None else plan[:, :clean]
                kept = self.call(self.lr_a2v.encode_prefix, prefix, text, audio[:, :, :clean], past)

            return lambda latents, t: self.call(
                self.lr_a2v, *_windowed(prefix, latents, t), new, text, audio, plan, base=base, prefix_kv=kept
            )

        conditional = denoiser(text, audio)
        if sampling.audio_guidance != 1:
            conditional = guided(conditional, denoiser(text, torch.zeros_like(audio)), sampling.audio_guidance)
        if sampling.text_guidance != 1:
            null_text = self.encode_text("").expand_as(text)
            conditional = guided(conditional, denoiser(null_text, audio), sampling.text_guidance)
        return euler(conditional, self._noise(states, new, prefix, stream=0), sampling.lr_steps)

    def _motion_plan(self, first: int, end: int, states: list[ChunkState]) -> Tensor:
        """Rows [B, end - first, M] of the streams' motion plans, counted from the chunk's first frame."""
        plans = [torch.from_numpy(state.plan.frames(end - first, first)) for state in states]
        return torch.stack(plans).to(self.device)

    def planned_keypoints(self, tokens: Tensor, new: int, states: list[ChunkState]) -> Tensor | None:
        """Where sound tokens [B, context + 4n, D], plan and prompt put the presenters, [B, 4n, 143, 3]."""
        if self.animator is None or self.point_planner is None:
            return None
        count = FRAMES_PER_LATENT * new
        heard = tokens[:, -count - self.animator.config.token_window + 1 :]
        plan = self._motion_plan(0, count, states)
        with torch.autocast(self.device.type, enabled=False):  # half a pixel is lost in bf16
            return self.point_planner(heard, plan, join([state.text for state in states]), at_rest(states))

    def _moved(self, pictures: list[Tensor], keypoints: Tensor, states: list[ChunkState]) -> Tensor | None:
        """Latents [B, C, n, h, w] of the reference pictures [1, 3, H, W] moved to keypoints [B, 4n, 143, 3]."""
        if self.animator is None:
            return None
        with torch.autocast(self.device.type, enabled=False):
            signed = join(pictures) * 2 - 1  # one picture, where the moved ones are many
            moved = self.call(self.animator.move, signed, at_rest(states), keypoints)
        return self.call(self.vae.encode_groups, moved, True)

    def refine(
        self,
        lr_latents: Tensor,
        keypoints: Tensor,
        states: list[ChunkState],
        sampling: SamplingConfig,
        stage_ms: dict[str, float],
    ) -> Tensor:
        """New LR latents [B, C, n, h, w] and keypoints [B, 4n, 143, 3] → new HR latents [B, C, n, 2h, 2w].

        After a chunk that was not refined it starts afresh from the reference, as in a stream's first chunk: encoding
        the enlarged frames as motion latents measured 1 dB worse on the first weights (and the decoder's memory, left
        as it was, makes no difference above 50 dB).
        """
        new, motion = lr_latents.shape[2], _motion(states, "hr_motion")
        motion_latents = motion[0].shape[2] if motion else 0
        if motion_latents:
            before = [lr_motion[:, :, -motion_latents:] for lr_motion in _motion(states, "lr_motion")]
            lr_latents = torch.cat([*before, lr_latents], dim=2)
        with self.timed(stage_ms, "low_pass"):
            seeds = self._latent_seeds(states, motion_latents + new, first=-motion_latents, stream=1)
            rows = lr_latents.transpose(1, 2).flatten(0, 1).unsqueeze(2)  # a row a latent: its noise is its own
            degraded = low_pass_noise(
                rows.contiguous(), self.preset.low_pass_sigma, self.preset.degradation_noise, seeds.flatten()
            )
            degraded = degraded[:, :, 0].unflatten(0, seeds.shape).transpose(1, 2)
            degraded = F.pad(upsample_latents(degraded), (0, 0, 0, 0, 1, 0))
        with self.timed(stage_ms, "pose"):
            points = [at_rest(states)[:, None].expand(-1, FRAMES_PER_LATENT, -1, -1)]
            shown = [state.motion_keypoints for state in states if state.motion_keypoints is not None]
            points += [torch.stack(shown)] if shown else []
            tokens = pose_tokens(torch.cat([*points, keypoints], dim=1), *self.preset.lr_latent_size)
        with self.timed(stage_ms, "animator"), self.fast():
            base = self._moved([state.reference.hr_picture for state in states], keypoints, states)
        prefix = torch.cat([join([state.reference.hr_latents for state in states]), *motion], dim=2)

        clean = prefix.shape[2]
        keeps = self.keeps_prefix and self.preset.refiner.transformer.prefix_causal and sampling.refiner_steps > 1

        def denoiser(tokens: Tensor) -> Denoiser:
            """The model with these pose tokens."""
            kept = None
            if keeps:
                kept = self.call(self.refiner.encode_prefix, prefix, degraded[:, :, :clean], tokens[:, :clean])

            return lambda latents, t: self.call(
                self.refiner, *_windowed(prefix, latents, t), new, degraded, tokens, base=base, prefix_kv=kept
            )

        with self.timed(stage_ms, "refiner"), self.fast():
            conditional = denoiser(tokens)
            if sampling.pose_guidance != 1:
                conditional = guided(conditional, denoiser(torch.zeros_like(tokens)), sampling.pose_guidance)
            return euler(conditional, self._noise(states, new, prefix, stream=2), sampling.refiner_steps)

    def _latent_seeds(self, states: list[ChunkState], count: int, first: int, stream: int) -> Tensor:
        """A seed [B, count] int64 for each latent of the streams, whatever the chunk it is made in."""
        place = torch.tensor([(state.seed * 1_000_003 + state.latent_index + first) * 3 + stream for state in states])
        return (place[:, None] + 3 * torch.arange(count)).to(self.device)

    def _noise(self, states: list[ChunkState], new: int, like: Tensor, stream: int) -> Tensor:
        """Unit normal noise [B, C, n, H, W] that depends on the seeds and the latents' places in the streams."""
        shape = (len(states) * new, like.shape[1], *like.shape[3:])
        seeds = self._latent_seeds(states, new, 0, stream).flatten()
        return standard_normal(shape, seeds, device=self.device).unflatten(0, (-1, new)).transpose(1, 2)


def at_rest(states: list[ChunkState]) -> Tensor:
    """Keypoints of the references, [B, 143, 3]."""
    return torch.stack([state.reference.keypoints for state in states])


def _motion(states: list[ChunkState], name: str) -> list[Tensor]:
    """The streams' "lr_motion" or "hr_motion", [B, C, m, H, W] in a list; an empty one where there are none."""
    found = [getattr(state, name) for state in states]
    return [] if found[0] is None else [join(found)]


def _windowed(prefix: Tensor, latents: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """Clean latents [B, C, 1 + m, H, W] and new ones [B, C, n, H, W] at times t [B] → window and its timesteps."""
    timesteps = torch.cat([t.new_ones(len(t), prefix.shape[2]), t[:, None].expand(-1, latents.shape[2])], dim=1)
    return torch.cat([prefix, latents], dim=2), timesteps
