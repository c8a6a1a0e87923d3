"""What every test stands on: no network, one thread, a cache of its own."""

from __future__ import annotations

import os
import tempfile

# Set before anything imports torch, transformers or triton; spawned workers inherit them.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_DATASETS_OFFLINE"] = "1"
os.environ["TRANSFORMERS_VERBOSITY"] = "error"
os.environ["TRITON_DEFAULT_FP_FUSION"] = "1"
# triton's own functions are interpreted, or not, from its first import on: not only the kernels' tests import it
os.environ["TRITON_INTERPRET"] = "1"
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TRITON_CACHE_DIR", tempfile.mkdtemp(prefix="tercet-triton-"))
