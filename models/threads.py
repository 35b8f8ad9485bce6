"""How the models' threads wait for each other."""

from __future__ import annotations

import os


def calm_threads() -> None:
    """Let threads of libgomp that have nothing to do sleep soon, instead of spinning; for children, too.

    A thread that spins at a barrier holds the core that the one it waits for needs: beside busy programs a chunk then
    takes seconds instead of half a one (`benchmarks/results/busy.json`). libgomp reads this when torch is imported, so
    it is called before. What the environment says already stays.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "1000")
