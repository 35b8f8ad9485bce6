"""Holds the doors between the packages, and that importing a module does nothing but define things."""

from __future__ import annotations

import ast
import graphlib
import importlib.util
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SHIPPED = ("kernels", "models", "streamer", "training", "evaluation")
PACKAGES = (*SHIPPED, "benchmarks", "tests")

# package -> prefixes of the project's own modules that it may import besides itself
ALLOWED: dict[str, tuple[str, ...]] = {
    "kernels": (),
    "models": ("kernels",),
    "streamer": ("models",),
    "training": ("models", "kernels"),
    "evaluation": ("models", "training.synthetic"),
    "benchmarks": SHIPPED,
    "tests": PACKAGES,
}
# Rooms of the streamer from the ground up: each may import those before it. Files that are not named are "files".
FLOORS = (
    *("errors", "files", "child", "engine", "media", "voice", "uploads", "avatar", "plugins", "session", "server"),
    *("doctor", "commands", "cli", "demo"),
)
NETWORK = ("asyncio", "socket", "ssl", "http", "urllib", "aiohttp", "aiortc", "requests", "websockets")


def source_files(package: str) -> list[Path]:
    return sorted(path for path in (ROOT / package).rglob("*.py") if "__pycache__" not in path.parts)


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported_names(path: Path) -> Iterator[tuple[int, str]]:
    """Absolute names of everything a file imports, at any depth, with the line."""
    package = module_name(path).split(".")
    if path.name != "__init__.py":
        package = package[:-1]
    for node in ast.walk(ast.parse(path.read_text(), filename=str(path))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            base = base + (node.module.split(".") if node.module else [])
            for alias in node.names:
                yield node.lineno, ".".join([*base, alias.name])


def is_under(name: str, prefix: str) -> bool:
    return name == prefix or name.startswith(prefix + ".")


@pytest.mark.parametrize("package", PACKAGES)
def test_package_imports_only_through_its_doors(package: str) -> None:
    wrong = []
    for path in source_files(package):
        for line, name in imported_names(path):
            top = name.split(".")[0]
            if top not in PACKAGES or top == package:
                continue
            if not any(is_under(name, allowed) for allowed in ALLOWED[package]):
                wrong.append(f"{path.relative_to(ROOT)}:{line} imports {name}")
    assert not wrong, "\n".join(wrong)


def import_graph() -> dict[str, set[str]]:
    """Every module of the project with those it imports, at any depth; names taken from a package count as it."""
    files = {module_name(path): path for package in PACKAGES for path in source_files(package)}
    graph: dict[str, set[str]] = {}
    for module, path in files.items():
        found = {name if name in files else name.rpartition(".")[0] for _, name in imported_names(path)}
        graph[module] = (found & files.keys()) - {module}
    return graph


def test_modules_import_in_no_circle() -> None:
    graphlib.TopologicalSorter(import_graph()).prepare()  # CycleError names the modules of a circle


def test_a_circle_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    (tmp_path / "models" / "inner").mkdir(parents=True)
    (tmp_path / "models" / "inner" / "__init__.py").write_text("from models.inner.low import thing\n")
    (tmp_path / "models" / "inner" / "low.py").write_text("def late():\n    from models import top\n")
    (tmp_path / "models" / "top.py").write_text("if TYPE_CHECKING:\n    from . import inner\n")
    with pytest.raises(graphlib.CycleError, match="circle|cycle"):
        test_modules_import_in_no_circle()


def test_streamer_imports_only_from_lower_floors() -> None:
    def floor(module: str) -> int:
        if module == "streamer":  # the front door, which loads what is asked for
            return len(FLOORS)
        room = module.split(".")[1] if module.count(".") else "files"
        return FLOORS.index(room if room in FLOORS else "demo" if room == "__main__" else "files")

    wrong = [
        f"{module} imports {name}"
        for module, names in import_graph().items()
        for name in names
        if is_under(module, "streamer") and is_under(name, "streamer") and floor(name) > floor(module)
    ]
    assert not wrong, "\n".join(wrong)


def test_models_know_no_network() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for package in ("models", "kernels")
        for path in source_files(package)
        for line, name in imported_names(path)
        if name.split(".")[0] in NETWORK
    ]
    assert not wrong, "\n".join(wrong)


def test_relative_imports_are_resolved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    folder = tmp_path / "models" / "inner"
    folder.mkdir(parents=True)
    (folder / "here.py").write_text("from . import near\nfrom ..far import thing\nimport training.losses\n")
    names = [name for _, name in imported_names(folder / "here.py")]
    assert names == ["models.inner.near", "models.far.thing", "training.losses"]


# Runs in a fresh interpreter. An event counts against a module of the project when it happens in its own
# code: walking outwards from the event, a frame of the project comes before one of the import machinery.
PROBE = """
import importlib, json, os, sys
sys.dont_write_bytecode = True
root, names = sys.argv[1], json.loads(sys.argv[2])
sys.path.insert(0, root)
packages = tuple(os.path.join(root, name) + os.sep for name in {packages})
seen, active, missing = [], [], []
WATCHED = ("open", "socket.connect", "socket.getaddrinfo", "os.mkdir", "os.remove", "os.rename",
           "os.listdir", "os.scandir", "subprocess.Popen", "os.system", "tempfile.mkstemp")

def hook(event, args):
    if not active or event not in WATCHED:
        return
    frame = sys._getframe(1)
    while frame is not None:
        file = frame.f_code.co_filename
        if file.startswith("<frozen importlib"):
            return
        if file.startswith(packages):
            seen.append(f"{{active[-1]}}: {{event}} {{args[:1]}} at {{file}}:{{frame.f_lineno}}")
            return
        frame = frame.f_back

sys.addaudithook(hook)
for name in names:
    active.append(name)
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name.split(".")[0] in {packages}:
            raise
        missing.append(f"{{name}} needs {{error.name}}")
    active.pop()
cuda = "torch" in sys.modules and sys.modules["torch"].cuda.is_initialized()
print(json.dumps({{"seen": seen, "triton": "triton" in sys.modules, "cuda": cuda, "missing": missing}}))
"""


def run_probe(root: Path, names: list[str]) -> dict:
    probe = PROBE.format(packages=repr(PACKAGES))
    done = subprocess.run(
        [sys.executable, "-c", probe, str(root), json.dumps(names)],
        capture_output=True,
        text=True,
        timeout=300,
        cwd=root,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_importing_modules_touches_nothing() -> None:
    names = [
        module_name(path)
        for package in SHIPPED
        for path in source_files(package)
        if not path.name.endswith("_kernel.py")
    ]
    found = run_probe(ROOT, names)
    assert not found["seen"], "\n".join(found["seen"])
    assert not found["cuda"], "a module started CUDA while it was imported"
    assert not found["triton"], "triton was imported before a kernel was asked for"


def test_touching_the_disk_while_imported_is_noticed(tmp_path: Path) -> None:
    package = tmp_path / "models"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "quiet.py").write_text("import json\n\n\ndef read():\n    return open(__file__).read()\n")
    (package / "loud.py").write_text("TEXT = open(__file__).read()\n")
    found = run_probe(tmp_path, ["models.quiet", "models.loud"])
    assert [line.split(":")[0] for line in found["seen"]] == ["models.loud"]


def test_triton_kernels_are_behind_the_dispatch() -> None:
    """Only `…_kernel.py` files import triton at module level."""
    wrong = []
    for path in source_files("kernels"):
        if path.name.endswith("_kernel.py"):
            continue
        for node in ast.parse(path.read_text()).body:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module:
                names.append(node.module)
            if any(name.startswith("triton") for name in names):
                wrong.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert not wrong, "\n".join(wrong)


def test_every_package_can_be_found() -> None:
    for package in ("streamer", "models"):
        assert importlib.util.find_spec(package) is not None
