"""Read YAML safely and remember the line of every key, so that an error can point at it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tercet.errors import RecipeError

Keys = tuple[Any, ...]


@dataclass(frozen=True)
class Located:
    """A YAML document's data with the line of each key path."""

    path: Path
    data: Any
    lines: dict[Keys, int]

    def place(self, keys: Keys) -> str:
        """Give `file:line` of the longest known prefix of `keys`."""
        keys = _spelled(keys)
        while keys and keys not in self.lines:
            keys = keys[:-1]
        return f"{self.path.name}:{self.lines.get(keys, 1)}"

    def has(self, keys: Keys) -> bool:
        """Say whether the document has this key path."""
        return _spelled(keys) in self.lines


def read_yaml(path: Path) -> Located:
    """Parse one YAML document with the safe loader.

    Raises:
        RecipeError: the file is missing, isn't UTF-8, isn't YAML, or repeats a key.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise RecipeError(f"{path}: no such file; start one with: tercet init") from error
    except IsADirectoryError as error:
        raise RecipeError(f"{path}: is a folder; give the recipe file in it") from error
    except UnicodeDecodeError as error:
        raise RecipeError(f"{path}: byte {error.start} is not UTF-8; save the file as UTF-8") from error
    except OSError as error:
        raise RecipeError(f"{path}: can't be read: {error.strerror}") from error
    try:
        for token in yaml.scan(text, Loader=yaml.SafeLoader):
            if isinstance(token, yaml.AliasToken):  # nested aliases can blow a small file up to any size
                line = token.start_mark.line + 1
                raise RecipeError(f"{path.name}:{line}: alias *{token.value}: not allowed here; write the value out")
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        lines: dict[Keys, int] = {}
        if node is not None:
            _walk(node, (), lines, path)
        return Located(path, yaml.safe_load(text), lines)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise RecipeError(f"{path.name}:{line}: not YAML: {error.problem}") from error
    except yaml.YAMLError as error:
        raise RecipeError(f"{path.name}:1: not YAML: {error}") from error


def _walk(node: yaml.Node, keys: Keys, lines: dict[Keys, int], path: Path) -> None:
    """Record the line of each key below `node`."""
    lines.setdefault(keys, node.start_mark.line + 1)
    if isinstance(node, yaml.MappingNode):
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode):
                raise RecipeError(f"{path.name}:{line}: a key that is itself a list or mapping; use a plain word")
            here = (*keys, key_node.value)
            if here in lines:
                name = ".".join(str(key) for key in here)
                raise RecipeError(f"{path.name}:{line}: {name}: given twice (first in line {lines[here]}); keep one")
            lines[here] = line
            _walk(value_node, here, lines, path)
    elif isinstance(node, yaml.SequenceNode):
        for position, child in enumerate(node.value):
            _walk(child, (*keys, str(position)), lines, path)


def _spelled(keys: Keys) -> Keys:
    """Spell keys as the file does: `1: x` has the key "1" here, whatever YAML makes of it."""
    return tuple(str(key) for key in keys)
