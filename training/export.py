"""Put a trained preset where the package looks for it: weights, configuration, gallery.

python -m training.export --weights RUN/weights --data DATA --preset presenter-256 [--out FOLDER]
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

import yaml

from models.checkpoints import components, shipped_weights, write_config
from models.pipeline import AvatarPipeline
from models.presets import preset

GALLERY = Path(__file__).parent / "configs" / "gallery.yaml"


def export_gallery(data: Path, gallery: list[dict], out: Path, framing: str = "head") -> None:
    """Copy the reference picture of every presenter of the gallery and write `gallery.json`."""
    out.mkdir(parents=True, exist_ok=True)
    for entry in gallery:
        shutil.copy(data / f"reference_{entry['name']}_{framing}.png", out / f"{entry['name']}.png")
        entry["picture"] = f"{entry['name']}.png"
    (out / "gallery.json").write_text(json.dumps(gallery, indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description="Export weights and gallery of a preset.")
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True, help="folder with the reference pictures")
    parser.add_argument("--preset", default="presenter-256")
    parser.add_argument("--out", type=Path, help="default: the package's own folder")
    arguments = parser.parse_args()
    out = arguments.out or shipped_weights(arguments.preset)
    write_config(out, preset(arguments.preset))
    for component in components(preset(arguments.preset)):
        shutil.copy(arguments.weights / f"{component}.safetensors", out / f"{component}.safetensors")
    export_gallery(arguments.data, yaml.safe_load(GALLERY.read_text()), out / "gallery")
    AvatarPipeline.load(arguments.preset, out)
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    print(f"{out}: {size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
