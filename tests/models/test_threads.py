import os
import subprocess
import sys

import pytest

from models.threads import calm_threads


def test_waiting_threads_sleep_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
        monkeypatch.delenv(name, raising=False)
    calm_threads()
    assert os.environ["GOMP_SPINCOUNT"] == "1000"


@pytest.mark.parametrize(("name", "value"), [("GOMP_SPINCOUNT", "7"), ("OMP_WAIT_POLICY", "ACTIVE")])
def test_what_the_environment_says_stays(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    for other in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
        monkeypatch.delenv(other, raising=False)
    monkeypatch.setenv(name, value)
    calm_threads()
    assert os.environ[name] == value and len({"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"} & os.environ.keys()) == 1


@pytest.mark.parametrize(
    "entry", ["import training.loop", "import evaluation.report", "cli.main(['avatars', '--json'])"]
)
def test_threads_are_calm_before_torch_is_there(entry: str) -> None:
    code = f"""
import builtins, os, sys
from streamer import cli
seen, real = [], builtins.__import__
def watch(name, *rest):
    if name == "torch" and "torch" not in sys.modules:
        seen.append(os.environ.get("GOMP_SPINCOUNT"))
    return real(name, *rest)
builtins.__import__ = watch
{entry}
sys.exit(seen[:1] not in ([], ["1000"]) or os.environ.get("GOMP_SPINCOUNT") != "1000")
"""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_"))}
    assert subprocess.run([sys.executable, "-c", code], env=environment, stdout=subprocess.DEVNULL).returncode == 0
