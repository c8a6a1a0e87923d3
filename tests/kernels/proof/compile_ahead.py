"""Compile kernels for GPUs that aren't here: a process of its own, where Triton doesn't interpret.

    python -m tests.kernels.proof.compile_ahead [VARIANT@TARGET ...]

Prints one JSON object a line: {"variant", "target", "digest", "facts"} or {..., "failure"}. `compiling` in
facts.py starts it with the environment it needs.
"""

from __future__ import annotations

import argparse
import contextlib
import inspect
import io
import json
import sys
from dataclasses import asdict
from typing import Any

from tests.kernels.proof.machine_code import Facts, facts_of
from tests.kernels.proof.shipped import Shipped, all_shipped, digest, function_of

from tercet_kernels.compiling import Variant


def compile_for(variant: Variant, target: str) -> Facts:
    """Compile one variant for one target, and read the facts of the machine code."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    names = list(inspect.signature(function_of(variant.kernel)).parameters)
    source = ASTSource(
        fn=variant.kernel,
        signature={name: variant.signature.get(name, "constexpr") for name in names},
        constexprs={(names.index(name),): value for name, value in variant.constants.items()},
        attrs={(names.index(name),): [["tt.divisibility", 16]] for name in variant.aligned},
    )
    gpu = GPUTarget("hip", target, 64) if target.startswith("gfx") else GPUTarget("cuda", int(target[3:]), 32)
    log = io.StringIO()
    with contextlib.redirect_stdout(log):  # TRITON_DUMP_PTXAS_LOG=1 prints what ptxas said
        options = {"num_warps": variant.num_warps, "num_stages": variant.num_stages}
        compiled = triton.compile(source, target=gpu, options=options)
    return facts_of(compiled, target, log.getvalue())


def result(shipped: Shipped, target: str) -> dict[str, Any]:
    """Compile, and say what came of it; a kernel that doesn't compile is a result too."""
    row: dict[str, Any] = {"variant": shipped.name, "target": target, "digest": digest(shipped.variant)}
    try:
        return row | {"facts": asdict(compile_for(shipped.variant, target))}
    except Exception as error:  # noqa: BLE001  compilers raise anything; its name and last line are the finding
        lines = str(error).strip().splitlines() or [""]
        return row | {"failure": f"{type(error).__name__}: {lines[-1][:300]}"}


def main() -> int:
    """Compile what is asked for."""
    parser = argparse.ArgumentParser(description="compile kernels ahead of time")
    parser.add_argument("wanted", nargs="*", help="VARIANT@TARGET; all where none is given")
    wanted = set(parser.parse_args().wanted)
    for shipped in all_shipped():
        for target in shipped.variant.targets:
            if not wanted or f"{shipped.name}@{target}" in wanted:
                sys.stdout.write(json.dumps(result(shipped, target)) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
