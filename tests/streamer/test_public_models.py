"""`infinity-avatar models`: what is said of files that fit and of forty that do not."""

import importlib.util
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from streamer.cli import main

_path = Path(__file__).parents[1] / "models" / "public" / "broken.py"
_spec = importlib.util.spec_from_file_location("broken", _path)
broken = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(broken)


def one_sentence(text: str) -> bool:
    return text.strip().count("\n") == 0 and "Traceback" not in text and "fault of the program" not in text


@pytest.mark.parametrize("name", broken.CASES)
def test_what_cannot_be_used_is_one_sentence(name, tmp_path, capsys):
    make, words = broken.CASES[name]
    path = make(tmp_path)
    assert main(["models", "check", str(path)]) == 2
    said = capsys.readouterr()
    problems = [line for line in (said.out + said.err).splitlines() if words in line]
    assert len(problems) == 1
    assert one_sentence(said.err)

    assert main(["models", "convert", str(path), str(tmp_path / "converted")]) == 2
    said = capsys.readouterr()
    assert one_sentence(said.err) and said.err.strip() and not said.out
    assert not (tmp_path / "converted").exists()
    assert not (tmp_path / "ran").exists(), "code of the file was run"


def test_a_pickle_comes_with_the_way_to_convert_it(tmp_path, capsys):
    path = tmp_path / "Wan2.1_VAE.pth"
    torch.save({"conv2.bias": torch.zeros(16)}, path)
    assert main(["models", "check", str(path)]) == 2
    said = capsys.readouterr().out
    command = said[said.index('python -c "') + len('python -c "') : said.rindex('"')]
    exec(compile(command, "command", "exec"), {})  # noqa: S102 - what we tell people to run does what we say
    assert load_file(path.with_suffix(".safetensors"))["conv2.bias"].shape == (16,)


def test_a_folder_that_fits_is_described(tmp_path, capsys):
    folder = broken.wan_folder(tmp_path / "Wan", broken.wan_tensors())
    assert main(["models", "check", str(folder)]) == 0
    said = capsys.readouterr().out
    assert "Wan transformer (wan)" in said and "code Apache-2.0; weights Apache-2.0" in said
    assert main(["models", "check", str(folder), "--json"]) == 0
    (part,) = json.loads(capsys.readouterr().out)["parts"]
    count = sum(tensor.numel() for tensor in broken.wan_tensors().values())
    assert part["is_usable"] and part["parameters"] == count and part["dtypes"] == ["F32"]
    assert part["memory_bytes"]["bf16"] == 2 * count


def test_parts_in_a_tree_are_found_and_what_is_missing_named(tmp_path, capsys):
    broken.wan_folder(tmp_path / "models" / "Wan", broken.wan_tensors())
    talk = {"audio_proj.proj1_vf.weight": torch.zeros(1, 1), "patch_embedding.weight": torch.zeros(1, 32, 1, 1, 1)}
    broken.wan_folder(tmp_path / "models" / "Model_Pro", talk, {"dim": 8})
    assert main(["models", "check", str(tmp_path / "models")]) == 2
    said = capsys.readouterr().out
    assert "SoulX-FlashHead 1.3B Pro (flashhead-pro)" in said and "Wan transformer (wan)" in said
    assert "missing for flashhead-pro: Wan2.1 VAE (wan-vae)" in said
    assert "missing for flashhead-pro: wav2vec2 (wav2vec2)" in said


def test_list_says_whose_and_under_which_licence(capsys):
    assert main(["models", "list", "--json"]) == 0
    families = json.loads(capsys.readouterr().out)
    by_name = {family["name"]: family for family in families}
    assert by_name["flashhead-pro"]["weights_licence"] == "Apache-2.0, as third parties report the model card"
    assert by_name["taehv"]["weights_licence"] == "MIT"
    assert main(["models", "list"]) == 0
    assert "leaptalk-lora: LeapTalk" in capsys.readouterr().out


@pytest.mark.parametrize("dtype", ["bf16", "fp16", "fp32"])
def test_converted_files_hold_the_same_numbers_under_our_names(dtype, tmp_path, capsys):
    from diffusers import WanTransformer3DModel

    sizes = {"num_attention_heads": 3, "attention_head_dim": 16, "in_channels": 4, "out_channels": 4, "text_dim": 20}
    oracle = WanTransformer3DModel(**sizes, freq_dim=32, ffn_dim=64, num_layers=2)
    oracle.save_pretrained(tmp_path / "diffusers")
    target = tmp_path / "converted"
    assert main(["models", "convert", str(tmp_path / "diffusers"), str(target), "--dtype", dtype]) == 0
    made = load_file(target / "model.safetensors")
    expected = oracle.state_dict()["blocks.1.attn2.to_k.weight"]
    assert torch.equal(made["blocks.1.cross_attn.k.weight"], expected.to(made["blocks.1.cross_attn.k.weight"].dtype))
    assert made["blocks.0.modulation"].dtype == torch.float32
    capsys.readouterr()
    assert main(["models", "check", str(target)]) == 0
    assert "Wan transformer (wan)" in capsys.readouterr().out


def test_a_folder_in_use_is_not_written_to(tmp_path, capsys):
    folder = broken.wan_folder(tmp_path / "Wan", broken.wan_tensors())
    assert main(["models", "convert", str(folder), str(folder)]) == 2
    assert "is there already" in capsys.readouterr().err


def test_values_that_are_not_finite_stop_a_conversion(tmp_path, capsys):
    tensors = broken.wan_tensors() | {"head.head.bias": torch.full((16,), torch.nan)}
    folder = broken.wan_folder(tmp_path / "Wan", tensors)
    assert main(["models", "convert", str(folder), str(tmp_path / "out")]) == 2
    assert "head.head.bias holds values that are not finite" in capsys.readouterr().err
    assert not list((tmp_path / "out").glob("*.safetensors"))


def test_a_lora_is_known(tmp_path, capsys):
    save_file({"base_model.model.blocks.0.cross_attn.q.lora_A.weight": torch.zeros(4, 4)}, tmp_path / "a.safetensors")
    assert main(["models", "check", str(tmp_path)]) == 0
    assert "LeapTalk" in capsys.readouterr().out
