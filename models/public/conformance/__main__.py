"""`python -m models.public.conformance FOLDER [ITEM …]`: exit code 0 if all items of the folder pass."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from models.public.conformance.items import check_item, items_in


def main(arguments: list[str] | None = None) -> int:
    """Check items, print a line each; 0 if all passed, 1 if one did not, 2 if there is none."""
    parser = argparse.ArgumentParser(prog="python -m models.public.conformance", description=__doc__)
    parser.add_argument("folder", type=Path, help="folder of items, NAME.json and NAME.safetensors each")
    parser.add_argument("items", nargs="*", metavar="ITEM", help="only these; default: all")
    options = parser.parse_args(arguments)
    names = options.items or items_in(options.folder)
    if not names:
        print(f"{options.folder} holds no items", file=sys.stderr)
        return 2
    has_failed = False
    for name in names:
        outcome = check_item(options.folder, name)
        print("\n".join(outcome.lines), flush=True)
        has_failed |= not outcome.is_passed
    return int(has_failed)


if __name__ == "__main__":
    sys.exit(main())
