"""The training loop that every stage shares: schedule, EMA, checkpoints to resume from, log lines.

A run is a folder: `state.safetensors` (model, EMA, optimiser), `run.json` (progress, configuration), `log.txt`.
"""

from __future__ import annotations

import copy
import dataclasses
import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

Model = TypeVar("Model", bound=nn.Module)


@dataclass(frozen=True)
class LoopConfig:
    """How long and how hard: minutes of wall time (over all resumes), AdamW, cosine after a flat part."""

    minutes: float = 10.0
    learning_rate: float = 8e-4
    final_learning_rate: float = 2e-5
    flat_share: float = 0.35
    warmup_steps: int = 50
    weight_decay: float = 0.01
    beta2: float = 0.98
    clip_norm: float = 1.0
    ema_decay: float = 0.996
    report_seconds: float = 60.0
    checkpoint_seconds: float = 180.0
    threads: int = 1
    seed: int = 0
    device: str = "cpu"
    bf16: bool = False  # autocast; for CUDA: bf16 is slower than fp32 on most CPUs

    def __post_init__(self) -> None:
        if self.minutes <= 0 or self.learning_rate <= 0:
            raise ValueError(f"minutes and learning_rate must be positive, got {self.minutes}, {self.learning_rate}")


class TrainingRun(Generic[Model]):
    """One stage's run in one folder; resumes when the folder has a state."""

    def __init__(self, folder: Path, model: Model, config: LoopConfig) -> None:
        self.folder, self.model, self.config = folder, model, config
        folder.mkdir(parents=True, exist_ok=True)
        torch.set_num_threads(config.threads)
        self.ema: Model = copy.deepcopy(model).requires_grad_(False)
        self.parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self.optimizer = torch.optim.AdamW(
            self.parameters.values(),
            config.learning_rate,
            betas=(0.9, config.beta2),
            weight_decay=config.weight_decay,
        )
        self.step, self.elapsed_s = 0, 0.0
        if (folder / "state.safetensors").is_file():
            self._load()

    @property
    def progress(self) -> float:
        """Share of the run's time that is spent, 0 … 1."""
        return min(1.0, self.elapsed_s / (60 * self.config.minutes))

    def train(
        self, loss_of_step: Callable[[], tuple[Tensor, dict[str, float]]], report: Callable[[Model], dict] | None
    ) -> None:
        """Run until the time is spent.

        Args:
            loss_of_step: draws a batch; returns the loss and figures to average in the log.
            report: (EMA model) → figures of held-out data, called every `report_seconds`.
        """
        figures: dict[str, list[float]] = {}
        clock = time.monotonic()
        next_report, next_checkpoint = self.elapsed_s + self.config.report_seconds, self.elapsed_s
        next_checkpoint += self.config.checkpoint_seconds
        while self.progress < 1:
            self._set_learning_rate()
            with torch.autocast(torch.device(self.config.device).type, torch.bfloat16, enabled=self.config.bf16):
                loss, values = loss_of_step()
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(self.parameters.values(), self.config.clip_norm)
            self.optimizer.step()
            self.step += 1
            self._update_ema()
            for name, value in {"loss": float(loss.detach()), **values}.items():
                figures.setdefault(name, []).append(value)
            now = time.monotonic()
            self.elapsed_s, clock = self.elapsed_s + now - clock, now
            if self.elapsed_s >= next_report or self.progress >= 1:
                next_report = self.elapsed_s + self.config.report_seconds
                means = {name: sum(v[-500:]) / len(v[-500:]) for name, v in figures.items()}
                self._log(means, self._held_out(report))
                figures.clear()
            if self.elapsed_s >= next_checkpoint or self.progress >= 1:
                next_checkpoint = self.elapsed_s + self.config.checkpoint_seconds
                self.save()
            clock = time.monotonic()  # reports and checkpoints are not training time

    def save(self) -> None:
        """Write the state to resume from; atomic."""
        tensors = {f"model.{k}": v for k, v in self.model.state_dict().items()}
        tensors |= {f"ema.{k}": v for k, v in self.ema.state_dict().items()}
        for name, parameter in self.parameters.items():
            for key, value in self.optimizer.state[parameter].items():
                tensors[f"optimizer.{name}.{key}"] = torch.as_tensor(value)
        partial = self.folder / "state.partial"
        save_file({k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}, partial)
        partial.replace(self.folder / "state.safetensors")
        progress = {"step": self.step, "elapsed_s": self.elapsed_s, "loop": dataclasses.asdict(self.config)}
        (self.folder / "run.json").write_text(json.dumps(progress, indent=1))

    def _load(self) -> None:
        tensors = load_file(self.folder / "state.safetensors")
        progress = json.loads((self.folder / "run.json").read_text())
        self.step, self.elapsed_s = progress["step"], progress["elapsed_s"]

        def part(prefix: str) -> dict[str, Tensor]:
            return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}

        self.model.load_state_dict(part("model."))
        self.ema.load_state_dict(part("ema."))
        for name, parameter in self.parameters.items():
            self.optimizer.state[parameter] = part(f"optimizer.{name}.")

    def _set_learning_rate(self) -> None:
        c = self.config
        fall = max(0.0, self.progress - c.flat_share) / max(1e-6, 1 - c.flat_share)
        rate = c.final_learning_rate + (c.learning_rate - c.final_learning_rate) * 0.5 * (1 + math.cos(math.pi * fall))
        rate *= min(1.0, (self.step + 1) / c.warmup_steps)
        for group in self.optimizer.param_groups:
            group["lr"] = rate

    @torch.no_grad()
    def _update_ema(self) -> None:
        decay = min(self.config.ema_decay, (self.step + 1) / (self.step + 20))
        for average, parameter in zip(self.ema.parameters(), self.model.parameters(), strict=True):
            average.lerp_(parameter, 1 - decay)
        for copied, buffer in zip(self.ema.buffers(), self.model.buffers(), strict=True):
            copied.copy_(buffer)

    @torch.no_grad()
    def _held_out(self, report: Callable[[Model], dict] | None) -> dict:
        if report is None:
            return {}
        state = torch.get_rng_state()
        self.ema.eval()
        values = report(self.ema)
        torch.set_rng_state(state)
        return values

    def _log(self, training: dict[str, float], held_out: dict) -> None:
        def text(values: dict) -> str:
            return "  ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in values.items())

        line = f"{self.elapsed_s / 60:6.1f} min  step {self.step:6d}  {text(training)}  |  {text(held_out)}"
        print(line, flush=True)
        with (self.folder / "log.txt").open("a") as log:
            log.write(line + "\n")
