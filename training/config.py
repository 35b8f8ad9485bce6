"""Run configurations: one YAML file a run, parsed once into nested dataclasses."""

from __future__ import annotations

import argparse
import dataclasses
import typing
from pathlib import Path
from typing import Any, TypeVar

import yaml

T = TypeVar("T")


def build(kind: type[T], values: dict[str, Any], where: str = "") -> T:
    """Nested dict → dataclass.

    Raises:
        ValueError: for a key that the dataclass does not have.
    """
    hints = typing.get_type_hints(kind)
    names = {item.name for item in dataclasses.fields(kind)}  # type: ignore[arg-type]
    if unknown := sorted(values.keys() - names):
        raise ValueError(
            f"unknown keys {', '.join(where + key for key in unknown)}; there are {', '.join(sorted(names))}"
        )
    built = {}
    for key, value in values.items():
        hint = hints[key]
        if dataclasses.is_dataclass(hint) and isinstance(value, dict):
            value = build(typing.cast(type, hint), value, f"{where}{key}.")
        elif hint is Path:
            value = Path(value)
        built[key] = value
    return kind(**built)


def parse_run(kind: type[T], description: str) -> T:
    """Command line `CONFIG.yaml [key=value …]` → run configuration; keys of nested parts are dotted."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("config", type=Path, help="YAML file of the run")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="values that replace the file's")
    arguments = parser.parse_args()
    values = yaml.safe_load(arguments.config.read_text()) or {}
    for override in arguments.overrides:
        key, separator, text = override.partition("=")
        if not separator:
            parser.error(f"{override!r} is not key=value")
        place = values
        *parents, last = key.split(".")
        for parent in parents:
            place = place.setdefault(parent, {})
        place[last] = yaml.safe_load(text)
    try:
        return build(kind, values)
    except (ValueError, TypeError) as error:
        parser.error(str(error))
