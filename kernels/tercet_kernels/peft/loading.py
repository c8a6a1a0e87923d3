"""Import PEFT, and say what to do where it can't be imported."""

from __future__ import annotations

import importlib.util
from typing import Any

BROKEN_TORCHAUDIO = (
    "peft can't be imported: the installed torchaudio was built for CUDA and can't load beside this torch. In a "
    "checkout of tercet run: python tools/fix_torchaudio.py; elsewhere remove torchaudio/lib/*.so or run: "
    "pip uninstall torchaudio"
)


def peft_layers() -> tuple[Any, Any]:
    """Return PEFT's LoRA classes for a linear and for a 2-d convolution.

    Raises ImportError, with the fix, where a torchaudio that doesn't fit this torch breaks the import of peft.
    """
    try:
        from peft.tuners.lora.layer import Conv2d, Linear
    except OSError as error:
        if importlib.util.find_spec("torchaudio") is None:
            raise
        raise ImportError(BROKEN_TORCHAUDIO) from error
    return Linear, Conv2d
