"""Files and folders that cannot be used, each with a word of the sentence that is said about it."""

from __future__ import annotations

import json
import pickle
import struct
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import save, save_file

CONFIG = {"dim": 48, "ffn_dim": 64, "num_layers": 2, "num_heads": 3, "in_dim": 4, "out_dim": 4, "text_dim": 20}
CONFIG |= {"freq_dim": 32, "eps": 1e-6, "model_type": "t2v"}


class Trap:
    """What runs a command when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return (Path.touch, (self.mark,))


def wan_tensors() -> dict[str, torch.Tensor]:
    """A tiny Wan transformer under its published names."""
    from models.public.wan import Wan, WanConfig

    torch.manual_seed(0)
    return Wan(WanConfig.from_published(CONFIG)).state_dict()


def wan_folder(folder: Path, tensors: dict[str, torch.Tensor], config: object = CONFIG) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / "diffusion_pytorch_model.safetensors")
    (folder / "config.json").write_text(config if isinstance(config, str) else json.dumps(config))
    return folder


def _with_header(folder: Path, header: bytes, data: bytes = b"", length: int | None = None) -> Path:
    path = folder / "model.safetensors"
    path.write_bytes(struct.pack("<Q", len(header) if length is None else length) + header + data)
    return path


def _file(folder: Path, content: bytes, name: str = "model.safetensors") -> Path:
    (folder / name).write_bytes(content)
    return folder / name


def _pickle(folder: Path, name: str) -> Path:
    return _file(folder, pickle.dumps(Trap(folder / "ran")), name)


def _changed(folder: Path, **changes: torch.Tensor | None) -> Path:
    """A Wan folder with tensors changed (`__` is a dot in their names), or taken away."""
    tensors = wan_tensors()
    for name, tensor in changes.items():
        name = name.replace("__", ".")
        if tensor is None:
            del tensors[name]
        else:
            tensors[name] = tensor
    return wan_folder(folder / "wan", tensors)


def _config(folder: Path, config: object) -> Path:
    return wan_folder(folder / "wan", wan_tensors(), config)


def _shards(folder: Path, lacks: str | None = None, index: str | None = None, repeats: bool = False) -> Path:
    tensors, names = wan_tensors(), sorted(wan_tensors())
    parts = {"a.safetensors": names[: len(names) // 2 + repeats], "b.safetensors": names[len(names) // 2 :]}
    target = folder / "wan"
    target.mkdir()
    for file, members in parts.items():
        if file != lacks:
            save_file({name: tensors[name] for name in members}, target / file)
    places = {name: file for file, members in parts.items() for name in members}
    text = json.dumps({"weight_map": places}) if index is None else index
    (target / "model.safetensors.index.json").write_text(text)
    (target / "config.json").write_text(json.dumps(CONFIG))
    return target


def _folder(folder: Path, **files: str) -> Path:
    target = folder / "other"
    target.mkdir()
    for name, text in files.items():
        (target / name.replace("_", ".")).write_text(text)
    return target


_TENSOR = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}

CASES: dict[str, tuple[Callable[[Path], Path], str]] = {
    "nothing there": (lambda folder: folder / "absent", "does not exist"),
    "empty folder": (_folder, "holds no weights"),
    "folder without weights": (lambda f: _folder(f, README_md="hello", config_json="{}"), "holds no weights"),
    "empty file": (lambda f: _file(f, b""), "not a readable safetensors file"),
    "text": (lambda f: _file(f, b"weights are over there\n" * 9), "not a readable safetensors file"),
    "web page": (lambda f: _file(f, b"<!doctype html><title>404</title>"), "not a readable safetensors file"),
    "pointer of a large-file store": (
        lambda f: _file(f, b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"),
        "not a readable safetensors file",
    ),
    "header longer than the file": (lambda f: _with_header(f, b"{}", length=1 << 20), "not a readable"),
    "header of all the memory": (lambda f: _with_header(f, b"{}", length=1 << 62), "not a readable"),
    "header is no JSON": (lambda f: _with_header(f, b"{tensors}"), "not a readable"),
    "header is a list": (lambda f: _with_header(f, b"[]"), "not a readable"),
    "header nested deep": (lambda f: _with_header(f, b'{"a":' * 5000 + b"1" + b"}" * 5000), "not a readable"),
    "no tensors": (lambda f: _with_header(f, b"{}"), "holds no tensors"),
    "data cut off": (lambda f: _file(f, save({"a": torch.zeros(99)})[:-40]), "not a readable"),
    "data past the end": (lambda f: _with_header(f, json.dumps({"a": _TENSOR}).encode(), b"1234"), "not a readable"),
    "offsets overlap": (
        lambda f: _with_header(f, json.dumps({"a": _TENSOR, "b": _TENSOR}).encode(), bytes(8)),
        "not a readable",
    ),
    "shape other than offsets": (
        lambda f: _with_header(f, json.dumps({"a": _TENSOR | {"shape": [3]}}).encode(), bytes(8)),
        "not a readable",
    ),
    "unknown dtype": (
        lambda f: _with_header(f, json.dumps({"a": _TENSOR | {"dtype": "F7"}}).encode(), bytes(8)),
        "not a readable",
    ),
    "pickle .pth": (lambda f: _pickle(f, "Wan2.1_VAE.pth"), "is a pickle"),
    "pickle .pt": (lambda f: _pickle(f, "audio_proj.pt"), "is a pickle"),
    "pickle .bin": (lambda f: _pickle(f, "pytorch_model.bin"), "is a pickle"),
    "pickle .ckpt": (lambda f: _pickle(f, "model.ckpt"), "is a pickle"),
    "pickle called safetensors": (lambda f: _pickle(f, "model.safetensors"), "not a readable safetensors file"),
    "folder with a pickle": (lambda f: _pickle(f, "model.pth").parent, "is a pickle"),
    "a model of somebody else": (
        lambda f: _file(f, save({"transformer.h.0.attn.c_attn.weight": torch.zeros(2)})),
        "no model that is known here",
    ),
    "lacks a tensor": (lambda f: _changed(f, head__head__bias=None), "lacks 1 tensors, the first head.head.bias"),
    "a tensor too many": (lambda f: _changed(f, more=torch.zeros(1)), "1 tensors too many, the first more"),
    "another shape": (lambda f: _changed(f, head__head__bias=torch.zeros(3)), "head.head.bias has shape [3]"),
    "whole numbers": (
        lambda f: _changed(f, head__head__bias=torch.zeros(16, dtype=torch.int32)),
        "head.head.bias holds I32",
    ),
    "config is no JSON": (lambda f: _config(f, "{dim: 48}"), "config.json cannot be read"),
    "config is a list": (lambda f: _config(f, "[]"), "holds no JSON object"),
    "config nested deep": (lambda f: _config(f, '{"a":' * 100_000 + "1" + "}" * 100_000), "config.json cannot be read"),
    "config lacks a number": (lambda f: _config(f, {k: v for k, v in CONFIG.items() if k != "dim"}), "lacks dim"),
    "config with text for a number": (lambda f: _config(f, CONFIG | {"dim": "48"}), "whole numbers above 0"),
    "config with an endless model": (lambda f: _config(f, CONFIG | {"num_layers": 10**9}), "num_layers must be"),
    "config of another size": (
        lambda f: _config(f, CONFIG | {"ffn_dim": 32}),
        "blocks.0.ffn.0.weight has shape [64, 48]",
    ),
    "a shard is missing": (lambda f: _shards(f, lacks="b.safetensors"), "lacks 1 of 2 shards, the first b.safetensors"),
    "index is no JSON": (lambda f: _shards(f, index="{"), "not a readable index of shards"),
    "index is a list": (lambda f: _shards(f, index="[]"), "not a readable index of shards"),
    "a tensor in two shards": (lambda f: _shards(f, repeats=True), "is both in a.safetensors and in b.safetensors"),
}
