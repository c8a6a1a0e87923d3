"""A subpackage that is also the function it exists for: `tercet.train(recipe)` beside `from tercet.train import loop`.

Importing a subpackage binds its name in its parent, so a function of the same name can't stay there.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any


class _CallableModule(ModuleType):
    def __call__(self, *arguments: Any, **named: Any) -> Any:
        module, _, attribute = self.__dict__["__call_named__"].partition(":")
        return getattr(importlib.import_module(module), attribute)(*arguments, **named)


def make_callable(name: str, named: str) -> None:
    """Let the module `name` be called as the function `named` ("module:attribute"), imported on its first call."""
    module = sys.modules[name]
    module.__dict__["__call_named__"] = named
    module.__class__ = _CallableModule
