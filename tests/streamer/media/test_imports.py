from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
FILES = (ROOT / "streamer/media").rglob("[!_]*.py")
MODULES = sorted(".".join(path.relative_to(ROOT).with_suffix("").parts) for path in FILES)


def test_the_media_process_never_imports_torch() -> None:
    code = "import sys\nfor name in sys.argv[1:]: __import__(name)\nprint('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code, *MODULES], capture_output=True, text=True, cwd=ROOT, timeout=120)
    assert done.returncode == 0, done.stderr
    assert len(MODULES) >= 15
    assert done.stdout.strip() == "False"
