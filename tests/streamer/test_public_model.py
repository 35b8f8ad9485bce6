"""Tiny random checkpoints in the published layout behind the command line and the engine."""

from __future__ import annotations

import asyncio
import json
import os
import pickle
import shutil
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from models.public.folders import Weights
from streamer import cli
from streamer.engine import Engine, EngineConfig, StreamSpec
from tests.models.public import tiny_folders

BASE = "SoulX-FlashHead-1_3B"
PRO, LITE, LEAP, AUDIO = f"{BASE}/Model_Pro", f"{BASE}/Model_Lite", "leaptalk", "wav2vec2-base-960h"
WEIGHTS, WAN = "diffusion_pytorch_model.safetensors", f"{BASE}/VAE_Wan/Wan2.1_VAE.safetensors"


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_folders.write(tmp_path_factory.mktemp("models"))


def render(model: Path, wav: Path, picture: Path, out: Path, *more: str) -> int:
    line = ["render", "--audio", wav, "--reference", picture, "--model", model, "--model-size", 64, "--out", out]
    return cli.main([*(str(argument) for argument in line), *more])


def test_render_with_a_public_model(tree: Path, wav: Path, picture: Path, tmp_path: Path, capsys) -> None:
    out, report = tmp_path / "clip.mp4", tmp_path / "clip.json"
    assert render(tree / LITE, wav, picture, out, "--report", str(report)) == 0, capsys.readouterr().err
    said = json.loads(report.read_text())
    assert said["frames"] == 33 and said["preset"] == "Model_Lite"  # two chunks of 24, the second cut
    with av.open(str(out)) as container:
        assert sum(1 for _ in container.decode(video=0)) == 33


def test_the_engine_serves_two_streams_of_a_public_model(tree: Path) -> None:
    async def chunks() -> list[list[np.ndarray]]:
        config = EngineConfig(model=tree / LITE, model_size=64, threads=1, max_streams=2)
        engine = await Engine.launch(config)
        try:
            assert engine.facts.fixed_latents == 6 and engine.facts.preset == "Model_Lite"
            picture = np.full((3, 64, 64), 0.5, np.float32)
            streams = [await engine.open(StreamSpec(picture, seed=seed, chunk_latents=6)) for seed in (1, 1)]
            made: list[list[np.ndarray]] = [[], []]
            for chunk in range(2):
                sound = np.random.default_rng(chunk).normal(0, 0.1, 6 * 2560).astype(np.float32)
                for row, stream in enumerate(streams):
                    result = await stream.step(sound, deadline_s=1e9)
                    made[row].append(np.array(result.frames))
            return made
        finally:
            await engine.close()

    first, twin = asyncio.run(chunks())
    assert [len(chunk) for chunk in first] == [24, 24]
    for one, other in zip(first, twin, strict=True):
        assert np.array_equal(one, other)


def edit_json(path: Path, **changes: object) -> None:
    config = json.loads(path.read_text())
    for name, value in changes.items():
        config.pop(name, None) if value is None else config.update({name: value})
    replace(path, json.dumps(config).encode())


def edit_tensors(path: Path, **changes: torch.Tensor | None) -> None:
    tensors = load_file(path)
    for name, tensor in changes.items():
        tensors.pop(name, None) if tensor is None else tensors.update({name: tensor})
    path.unlink()
    save_file(tensors, path)


def replace(path: Path, content: bytes) -> None:
    path.unlink(missing_ok=True)  # it is a link to the file that others use
    path.write_bytes(content)


def truncate(path: Path, size: int) -> None:
    replace(path, path.read_bytes()[:size])


def as_pickle(path: Path, suffix: str) -> None:
    path.unlink()
    path.with_suffix(suffix).write_bytes(pickle.dumps({"w": Bomb()}))


class Bomb:
    """Whoever unpickles it leaves a folder behind."""

    def __reduce__(self) -> tuple:
        return os.mkdir, ("exploded",)


BROKEN = {
    # what is named
    "no such folder": (PRO, lambda t: shutil.rmtree(t / PRO), "no folder"),
    "the folder above": (BASE, lambda t: None, "name one of them"),
    "an empty folder": (PRO, lambda t: [f.unlink() for f in (t / PRO).iterdir()], "holds no .safetensors"),
    # config.json
    "no config": (PRO, lambda t: (t / PRO / "config.json").unlink(), "no config.json"),
    "config no JSON": (PRO, lambda t: replace(t / PRO / "config.json", b"{"), "cannot be read"),
    "config a list": (PRO, lambda t: replace(t / PRO / "config.json", b"[1]"), "no JSON object"),
    "config too deep": (PRO, lambda t: replace(t / PRO / "config.json", b"[" * 100_000), "cannot be read"),
    "config not text": (PRO, lambda t: replace(t / PRO / "config.json", b"\xff\xfe\x00"), "cannot be read"),
    "config lacks dim": (PRO, lambda t: edit_json(t / PRO / "config.json", dim=None), "lacks dim"),
    "dim a word": (PRO, lambda t: edit_json(t / PRO / "config.json", dim="large"), "dim must be"),
    "dim negative": (PRO, lambda t: edit_json(t / PRO / "config.json", dim=-48), "dim must be"),
    "dim gigantic": (PRO, lambda t: edit_json(t / PRO / "config.json", dim=48 << 20), "dim must be"),
    "layers gigantic": (PRO, lambda t: edit_json(t / PRO / "config.json", num_layers=10**9), "num_layers"),
    "heads do not divide": (PRO, lambda t: edit_json(t / PRO / "config.json", num_heads=5), "does not divide"),
    "patch of two numbers": (PRO, lambda t: edit_json(t / PRO / "config.json", patch_size=[2, 2]), "patch_size"),
    "channels do not fit": (PRO, lambda t: edit_json(t / PRO / "config.json", in_dim=36), "twice out_dim"),
    "another model's config": (PRO, lambda t: edit_json(t / PRO / "config.json", has_image_input=True), "image"),
    # the denoiser's file
    "file cut short": (PRO, lambda t: truncate(t / PRO / WEIGHTS, 5000), "not a readable safetensors"),
    "file empty": (PRO, lambda t: truncate(t / PRO / WEIGHTS, 0), "not a readable safetensors"),
    "header lies about its length": (PRO, lambda t: replace(t / PRO / WEIGHTS, b"\xff" * 64), "not a readable"),
    "a pickle": (PRO, lambda t: as_pickle(t / PRO / WEIGHTS, ".bin"), "is a pickle"),
    "a pickle under another name": (
        PRO, lambda t: replace(t / PRO / WEIGHTS, pickle.dumps({"w": Bomb()})), "not a readable"
    ),
    "a tensor missing": (
        PRO, lambda t: edit_tensors(t / PRO / WEIGHTS, **{"head.head.bias": None}), "lacks 1 tensors"
    ),
    "a tensor too many": (PRO, lambda t: edit_tensors(t / PRO / WEIGHTS, extra=torch.zeros(1)), "too many"),
    "a tensor of another shape": (
        PRO, lambda t: edit_tensors(t / PRO / WEIGHTS, **{"head.head.bias": torch.zeros(3)}), "has shape"
    ),
    # what it needs beside it
    "no auto-encoder": (PRO, lambda t: (t / WAN).unlink(), "needs VAE_Wan"),
    "the auto-encoder as published": (PRO, lambda t: as_pickle(t / WAN, ".pth"), "save_file"),
    "another auto-encoder": (PRO, lambda t: edit_tensors(t / WAN, **{"encoder.conv1.weight": None}), "Wan2.1's VAE"),
    "LTX config of another kind": (
        LITE, lambda t: edit_json(t / BASE / "VAE_LTX/config.json", timestep_conditioning=True), "timestep"
    ),
    "LTX of other channels": (
        LITE, lambda t: edit_json(t / BASE / "VAE_LTX/config.json", latent_channels=16), "16 channels"
    ),
    "no wav2vec2": (LITE, lambda t: shutil.rmtree(t / AUDIO), f"needs {AUDIO}"),
    "a large wav2vec2": (LITE, lambda t: edit_json(t / AUDIO / "config.json", num_hidden_layers=3), "3 layers"),
    "a HuBERT": (LITE, lambda t: edit_json(t / AUDIO / "config.json", model_type="hubert"), "hubert"),
    "wav2vec2 lacks a tensor": (
        LITE,
        lambda t: edit_tensors(t / AUDIO / "model.safetensors", **{"wav2vec2.encoder.layer_norm.bias": None}),
        "lacks 1 tensors",
    ),
    # LeapTalk
    "LoRA without its rank": (LEAP, lambda t: edit_json(t / LEAP / "adapter_config.json", r=None), "lora_alpha and r"),
    "LoRA of rank 0": (LEAP, lambda t: edit_json(t / LEAP / "adapter_config.json", r=0), "lora_alpha and r"),
    "LoRA of a kind unknown": (
        LEAP, lambda t: edit_json(t / LEAP / "adapter_config.json", use_dora=True), "kind of LoRA"
    ),
    "half a LoRA": (
        LEAP,
        lambda t: edit_tensors(
            t / LEAP / "adapter_model.safetensors",
            **{"base_model.model.blocks.0.self_attn.q.lora_B.weight": None},
        ),
        "without its lora_B",
    ),
    "audio_proj as published": (
        LEAP, lambda t: as_pickle(t / LEAP / "audio_proj_step_10400.safetensors", ".pt"), "save_file"
    ),
    "no base": (LEAP, lambda t: shutil.rmtree(t / BASE), f"needs {BASE}/Model_Pro"),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_checkpoint_is_one_sentence(
    tree: Path, wav: Path, picture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys, case: str
) -> None:
    def read(self: Weights) -> None:
        raise AssertionError("a tensor was read")

    monkeypatch.setattr(Weights, "read", read)
    monkeypatch.chdir(tmp_path)  # where a bomb would leave its folder
    name, spoil, words = BROKEN[case]
    copy = tmp_path / "models"
    shutil.copytree(tree, copy, copy_function=os.link)
    spoil(copy)
    assert render(copy / name, wav, picture, tmp_path / "clip.mp4") == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.count("\n") == 1 and "fault of the program" not in said.err
    assert words in said.err
    assert not (tmp_path / "clip.mp4").exists() and not (tmp_path / "exploded").exists()


def test_values_that_are_not_finite_are_one_sentence(
    tree: Path, wav: Path, picture: Path, tmp_path: Path, capsys
) -> None:
    copy = tmp_path / "models"
    shutil.copytree(tree, copy, copy_function=os.link)
    edit_tensors(copy / LITE / WEIGHTS, **{"head.head.bias": torch.full((8,), float("nan"))})
    assert render(copy / LITE, wav, picture, tmp_path / "clip.mp4") == 2
    assert "head.head.bias holds values that are not finite" in capsys.readouterr().err
