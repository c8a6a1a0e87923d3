"""tercet: synthetic training data in word, sound and image, measured gates, adapters, and an honest decision.

    recipe = tercet.load_recipe("pharmacy.yaml")
    tercet.preview(recipe, 3)
    result = tercet.run(recipe)
    tercet.train(recipe)
    tercet.evaluate(recipe)["decision"]
    tercet.export(result.run_dir, "out", ["parquet"])

The command line calls exactly these functions; importing this package imports no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from tercet.recipe import Recipe, load_recipe

if TYPE_CHECKING:
    from tercet.evaluate.run import evaluate_recipe as evaluate
    from tercet.export import export
    from tercet.pipeline.preview import preview
    from tercet.pipeline.run import run_recipe as run
    from tercet.store.summary import read_summary as status
    from tercet.train.run import train_recipe as train

__version__ = "0.1.0"
__all__ = ["Recipe", "__version__", "evaluate", "export", "load_recipe", "preview", "run", "status", "train"]

_CALLS = {  # imported on first use: `import tercet` stays light
    "preview": "tercet.pipeline.preview:preview",
    "run": "tercet.pipeline.run:run_recipe",
    "status": "tercet.store.summary:read_summary",
    "export": "tercet.export:export",
    "train": "tercet.train.run:train_recipe",
    "evaluate": "tercet.evaluate.run:evaluate_recipe",
}


def __getattr__(name: str) -> Any:
    if name not in _CALLS:
        raise AttributeError(f"module 'tercet' has no attribute {name!r}; it has {', '.join(__all__)}")
    module, _, attribute = _CALLS[name].partition(":")
    return getattr(importlib.import_module(module), attribute)
