"""`infinity-avatar models`: what public weights are known, what lies in a folder, and into our layout with it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TextIO

from streamer.errors import InputError, OutputError


def list_models(is_json: bool, stream: TextIO) -> None:
    """Prints all families: what they are called, by whom, under which licences, what they need beside them."""
    from models.public.catalog import FAMILIES
    from models.public.report import catalog_lines

    if is_json:
        keys = ("name", "title", "files", "made_by", "code_licence", "weights_licence", "needs")
        entries = [{key: getattr(family, key) for key in keys} for family in FAMILIES]
        print(json.dumps(entries, indent=2), file=stream)
    else:
        print("\n".join(catalog_lines()), file=stream)


def check_models(path: Path, device: str, is_json: bool, stream: TextIO) -> int:
    """Says what lies at a path; 0 if all of it can be used, else 2.

    Raises:
        InputError: if there is nothing, or no such device.
    """
    from models.public.inspection import inspect, missing_beside
    from models.public.report import describe, lines, missing_lines, this_device

    try:
        parts, place = inspect(path), this_device(device)
    except ValueError as error:
        raise InputError(str(error)) from error
    wanting = missing_beside(parts)
    if is_json:
        missing = {name: [family.name for family in families] for name, families in wanting.items()}
        print(
            json.dumps({"parts": [describe(part, place) for part in parts], "missing": missing}, indent=2), file=stream
        )
    else:
        for part in parts:
            print("\n".join(lines(part, place)), file=stream)
        print("\n".join(missing_lines(wanting)), file=stream, end="\n" if any(wanting.values()) else "")
    return 2 if any(part.problem is not None for part in parts) else 0


def convert_model(source: Path, target: Path, dtype: str, stream: TextIO) -> None:
    """Converts one model into our layout and says where it is.

    Raises:
        InputError: if the source cannot be used or the target is in use.
        OutputError: if it cannot be written.
    """
    from models.public.convert import convert

    try:
        folder = convert(source, target, dtype)
    except ValueError as error:
        raise InputError(str(error)) from error
    except OSError as error:
        raise OutputError(f"cannot write {target}: {error.strerror or error}") from error
    print(f"{folder}: {dtype}", file=stream)
