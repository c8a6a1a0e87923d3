"""tercet: synthetic training data in word, sound and image, measured gates, adapters, and an honest decision.

The command line calls exactly these functions; importing this package imports no torch.
"""

from __future__ import annotations

from tercet.recipe import Recipe, load_recipe

__version__ = "0.1.0"
__all__ = ["Recipe", "__version__", "load_recipe"]
