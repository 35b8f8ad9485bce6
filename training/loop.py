"""The training loop that every stage shares: schedule, EMA, checkpoints to resume from, log lines.

A run is a folder: `state.safetensors` (model, EMA, optimiser, random generator; progress and configuration in its
metadata), `log.txt`.
Nothing in a step waits for a CUDA device: figures stay on it until they are logged.
"""

from __future__ import annotations

import copy
import dataclasses
import json
import math
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

Model = TypeVar("Model", bound=nn.Module)
Batch = TypeVar("Batch")
Figures = dict[str, Tensor]  # scalars to average in the log, detached


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
    prefetch_threads: int = 0  # that draw batches ahead, where drawing is work for a processor
    seed: int = 0
    device: str = "cpu"
    bf16: bool = False  # autocast; for CUDA, and for processors with AVX512-BF16: slower than fp32 on others

    def __post_init__(self) -> None:
        if self.minutes <= 0 or self.learning_rate <= 0:
            raise ValueError(f"minutes and learning_rate must be positive, got {self.minutes}, {self.learning_rate}")


class TrainingRun(Generic[Model]):
    """One stage's run in one folder; resumes when the folder has a state."""

    def __init__(self, folder: Path, model: Model, config: LoopConfig) -> None:
        self.folder, self.model, self.config = folder, model, config
        folder.mkdir(parents=True, exist_ok=True)
        torch.set_num_threads(config.threads)
        self.device = torch.device(config.device)
        if self.device.type == "cuda":
            torch.set_float32_matmul_precision("high")  # TF32 where it is not bf16
            torch.backends.cudnn.benchmark = True  # batches have few shapes
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

    def autocast(self) -> AbstractContextManager:
        """What the models run under. Batches and losses stay outside, in single precision."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.bf16)

    def train(
        self, loss_of_step: Callable[[], tuple[Tensor, Figures]], report: Callable[[Model], dict] | None
    ) -> None:
        """Run until the time is spent.

        Args:
            loss_of_step: draws a batch; returns the loss and figures to average in the log.
            report: (EMA model) → figures of held-out data, called every `report_seconds` under `autocast`.
        """
        figures: dict[str, deque[Tensor]] = {}
        clock = time.monotonic()
        next_report, next_checkpoint = self.elapsed_s + self.config.report_seconds, self.elapsed_s
        next_checkpoint += self.config.checkpoint_seconds
        while self.progress < 1:
            self._set_learning_rate()
            loss, values = loss_of_step()
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(self.parameters.values(), self.config.clip_norm)
            self.optimizer.step()
            self.step += 1
            self._update_ema()
            for name, value in {"loss": loss.detach(), **values}.items():
                figures.setdefault(name, deque(maxlen=500)).append(value)
            now = time.monotonic()
            self.elapsed_s, clock = self.elapsed_s + now - clock, now
            if self.elapsed_s >= next_report or self.progress >= 1:
                next_report = self.elapsed_s + self.config.report_seconds
                means = {name: float(torch.stack(list(values)).mean()) for name, values in figures.items()}
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
        tensors["generator"] = torch.get_rng_state()
        if self.device.type == "cuda":
            tensors["generator.cuda"] = torch.cuda.get_rng_state(self.device)
        progress = {"step": self.step, "elapsed_s": self.elapsed_s, "loop": dataclasses.asdict(self.config)}
        partial = self.folder / "state.partial"
        whole = {k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}
        save_file(whole, partial, metadata={"progress": json.dumps(progress)})
        partial.replace(self.folder / "state.safetensors")

    def _load(self) -> None:
        with safe_open(self.folder / "state.safetensors", "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}
            progress = json.loads(file.metadata()["progress"])
        self.step, self.elapsed_s = progress["step"], progress["elapsed_s"]
        torch.set_rng_state(tensors["generator"])
        if "generator.cuda" in tensors and self.device.type == "cuda":
            torch.cuda.set_rng_state(tensors["generator.cuda"], self.device)

        def part(prefix: str) -> dict[str, Tensor]:
            return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}

        self.model.load_state_dict(part("model."))
        self.ema.load_state_dict(part("ema."))
        for name, parameter in self.parameters.items():
            moments = part(f"optimizer.{name}.")  # where the parameter is; AdamW counts its steps on the host
            self.optimizer.state[parameter] = {
                key: value if key == "step" else value.to(parameter.device) for key, value in moments.items()
            }

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
        torch._foreach_lerp_(list(self.ema.parameters()), list(self.model.parameters()), 1 - decay)
        for copied, buffer in zip(self.ema.buffers(), self.model.buffers(), strict=True):
            copied.copy_(buffer)

    @torch.no_grad()
    def _held_out(self, report: Callable[[Model], dict] | None) -> dict:
        if report is None:
            return {}
        self.ema.eval()
        # The report seeds the generators: the run's own go on as if there had been none.
        with torch.random.fork_rng([self.device] if self.device.type == "cuda" else []), self.autocast():
            return report(self.ema)

    def _log(self, training: dict[str, float], held_out: dict) -> None:
        def text(values: dict) -> str:
            return "  ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in values.items())

        line = f"{self.elapsed_s / 60:6.1f} min  step {self.step:6d}  {text(training)}  |  {text(held_out)}"
        print(line, flush=True)
        with (self.folder / "log.txt").open("a") as log:
            log.write(line + "\n")


class Prefetcher(Generic[Batch]):
    """Batches drawn by threads ahead of the loop, always in the same order.

    Batch number k is `draw(generator of k)`, whoever draws it: the sequence does not depend on the threads.
    """

    def __init__(
        self, draw: Callable[[np.random.Generator], Batch], seed: int, first: int = 0, threads: int = 0
    ) -> None:
        """`first`: number of the first batch, for runs that go on; threads 0: draw when asked."""
        self._draw, self._seed, self._number = draw, seed, first
        self._executor = ThreadPoolExecutor(threads) if threads else None
        self._ahead: deque[Future[Batch]] = deque()
        for _ in range(2 * threads):
            self._submit()

    def next(self) -> Batch:
        """The next batch; raises what `draw` raised for it."""
        if self._executor is None:
            self._number += 1
            return self._draw(self._generator(self._number - 1))
        batch = self._ahead.popleft().result()
        self._submit()
        return batch

    def close(self) -> None:
        """Stop the threads; batches that were not taken are lost."""
        if self._executor is not None:
            self._executor.shutdown(wait=True, cancel_futures=True)

    def _generator(self, number: int) -> np.random.Generator:
        return np.random.default_rng([self._seed, number])

    def _submit(self) -> None:
        assert self._executor is not None
        self._ahead.append(self._executor.submit(self._draw, self._generator(self._number)))
        self._number += 1
