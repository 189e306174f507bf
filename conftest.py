"""For this repository's own runs: Hypothesis without deadlines, pytester, one thread per process."""

from __future__ import annotations

import os

from hypothesis import settings

pytest_plugins = ["pytester"]

# Workers share the cores; read when torch is first imported, also by the subprocesses of tests.
os.environ.setdefault("OMP_NUM_THREADS", "1")

settings.register_profile("repository", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("repository")
