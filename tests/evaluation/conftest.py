"""Toy takes, written and read once."""

from __future__ import annotations

from pathlib import Path

import pytest

from evaluation.takes import Take, read_takes
from tests.evaluation import toy


@pytest.fixture(scope="session")
def takes_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two takes of two drawn presenters, six seconds each."""
    folder = tmp_path_factory.mktemp("takes")
    for index, presenter in enumerate(["ana", "ana", "ben", "ben"]):
        toy.write_take(folder, presenter, index % 2, 6.0, seed=index)
    return folder


@pytest.fixture(scope="session")
def takes(takes_folder: Path) -> list[Take]:
    return read_takes(takes_folder)
