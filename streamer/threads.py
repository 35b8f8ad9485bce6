"""How the models' threads wait for each other."""

from __future__ import annotations

import os


def calm_threads() -> None:
    """Let threads of libgomp that have nothing to do sleep instead of spin; for this process and its children.

    Threads that spin at a barrier make a chunk take seconds instead of half a one as soon as anything else wants the
    same cores: they hold the core that the thread they wait for needs. libgomp reads this when it is loaded, so it is
    to be called before torch is imported.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
