"""Every kernel that ships, in every configuration, with a digest of what the compiler would see."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import inspect
import io
import pkgutil
import textwrap
import tokenize
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import tercet_kernels
from tercet_kernels.compiling import Variant

SILENT = {tokenize.COMMENT, tokenize.NL}  # tokens that no compiler sees
DOCSTRING = ([tokenize.INDENT, tokenize.STRING], [tokenize.NEWLINE, tokenize.STRING])  # a statement that is a string


@dataclass(frozen=True)
class Shipped:
    """A variant and the operator that lists it."""

    operator: str
    variant: Variant

    @property
    def kernel(self) -> str:
        """Name the kernel: "lora.lora_down"."""
        return f"{self.operator}.{function_of(self.variant.kernel).__name__}"

    @property
    def name(self) -> str:
        """Name the variant of the kernel: "lora.lora_down/r16"."""
        return f"{self.kernel}/{self.variant.name}"


def all_shipped() -> list[Shipped]:
    """List the variants of each operator's `fused.py`; each must name its kernel's arguments, all of them."""
    shipped = [Shipped(operator, variant) for operator in operators() for variant in variants_of(operator)]
    for one in shipped:
        faults = argument_faults(one.variant)
        if faults:
            raise ValueError(f"{one.name}: {'; '.join(faults)}")
    return shipped


def operators() -> list[str]:
    """Name the operators that are written in Triton: the packages with a `fused.py` that lists variants."""
    packages = [module.name for module in pkgutil.iter_modules(tercet_kernels.__path__) if module.ispkg]
    return [name for name in sorted(packages) if hasattr(fused_module(name), "variants")]


def fused_module(operator: str) -> Any:
    """Import an operator's `fused.py`; None where it has none."""
    name = f"tercet_kernels.{operator}.fused"
    return importlib.import_module(name) if importlib.util.find_spec(name) else None


def variants_of(operator: str) -> list[Variant]:
    """Ask an operator for its variants."""
    return list(fused_module(operator).variants())


def argument_faults(variant: Variant) -> list[str]:
    """Say which arguments a variant forgets, invents or names twice."""
    arguments = list(inspect.signature(function_of(variant.kernel)).parameters)
    typed, constant = set(variant.signature), set(variant.constants)
    return (
        [f"{name} has neither a type nor a value" for name in arguments if name not in typed | constant]
        + [f"{name} is no argument of the kernel" for name in sorted((typed | constant) - set(arguments))]
        + [f"{name} has both a type and a value" for name in sorted(typed & constant)]
        + [f"{name} is said to be aligned, but has no type" for name in variant.aligned if name not in typed]
    )


def function_of(kernel: Any) -> Callable[..., Any]:
    """Give the Python function under `@triton.jit`, compiled or interpreted."""
    function: Callable[..., Any] = kernel.fn
    return function


def digest(variant: Variant) -> str:
    """Digest all that decides the machine code: the kernel, the functions and constants it uses, the configuration.

    Comments, docstrings and blank lines don't count, nor does where in its file a function stands.
    """
    configuration = [
        variant.name,
        sorted(variant.signature.items()),
        sorted((name, str(value)) for name, value in variant.constants.items()),
        sorted(variant.aligned),
        variant.num_warps,
        variant.num_stages,
    ]
    parts = [repr(configuration), *used_by(function_of(variant.kernel), {})]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def used_by(function: Callable[..., Any], seen: dict[str, None]) -> list[str]:
    """Give the code of `function` and of each jit function it calls, and the constants they read."""
    key = f"{function.__module__}.{function.__qualname__}"
    if key in seen:
        return []
    seen[key] = None
    source = textwrap.dedent(inspect.getsource(function))
    parts = [f"{key}: {bare(source)}"]
    for name, value in globals_read(source, function.__globals__):
        if inspect.isfunction(getattr(value, "fn", None)) and ours(value.fn):
            parts += used_by(value.fn, seen)
        elif hasattr(value, "value") or not (inspect.ismodule(value) or callable(value)):
            parts.append(f"{key}: {name} = {getattr(value, 'value', value)!r}")  # tl.constexpr keeps its own in `value`
    return parts


def ours(function: Callable[..., Any]) -> bool:
    """Tell our functions from Triton's own library, which a version of Triton stands for."""
    return function.__module__.split(".")[0] != "triton"


def globals_read(source: str, names: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield what a function reads from outside: `NAME`, and `module.NAME` for each module it can see."""
    tree = ast.parse(source)
    read = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)} & names.keys()
    for name in sorted(read):
        yield name, names[name]
    through = {
        (node.value.id, node.attr)
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in names
    }
    for name, attribute in sorted(through):
        if inspect.ismodule(names[name]) and not names[name].__name__.startswith("triton"):
            yield f"{name}.{attribute}", getattr(names[name], attribute)


def bare(source: str) -> str:
    """Strip what says nothing to a compiler: comments, blank lines, docstrings."""
    kept: list[tokenize.TokenInfo] = []
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type in SILENT:
            continue
        types = [before.type for before in kept[-2:]]
        if token.type == tokenize.NEWLINE and types in DOCSTRING:
            kept.pop()
        else:
            kept.append(token)
    return " ".join(token.string for token in kept)
