"""Write the README's tree: each folder with the first line of what it says about itself.

A package's line is its docstring's first; for the folders that hold no package the line stands here.
"""

from __future__ import annotations

import argparse
import ast
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
BEGIN, END = "<!-- tree:begin (make tree) -->", "<!-- tree:end -->"
DESCRIBED = {
    ".ci": "what continuous integration runs",
    "benchmarks": "scripts that measure, and what they measured",
    "benchmarks/pipeline": "records per second, memory and start-up of the pipeline itself",
    "benchmarks/training": "our training against transformers' trainers",
    "benchmarks/results": "one JSON file per measurement, with its machine and command",
    "modalities/tercet_image/bases": "small bases of our own, with their cards and logs",
    "docs": "decisions, status and what needs more than a docstring",
    "docs/decisions": "one page each: context, choice, price",
    "docs/status": "per issue: what is done, and the command that shows it",
    "kernels": "Triton kernels, each beside its definition",
    "modalities": "the plug-ins, found by entry point",
    "recipes": "runnable examples",
    "recipes/pharmacy": "the sample inputs: drug names and a made-up pharmacy's documents",
    "recipes/support": "the tools of a made-up pharmacy's support desk",
    "src": "the core",
    "tests": "one folder per part; `test_layers.py` checks the tree itself",
    "tests/core": "recipe, store, pipeline, training, evaluation",
    "tests/end_to_end": "whole runs, and a fourth modality from a wheel of its own",
    "tests/modalities": "the contract every modality keeps, and each plug-in's own tests",
    "tools": "what the Makefile calls",
    "tools/bases": "how the bundled bases were trained",
}
MOST_DEPTH = {"src": 3, "modalities": 3, "kernels": 3}  # folders below the top that are shown; 2 elsewhere


def tree() -> str:
    """Lay out the tracked folders, one a line."""
    paths = subprocess.run(["git", "ls-files"], cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout
    folders = {parent for path in paths.splitlines() for parent in Path(path).parents if parent != Path()}
    lines = []
    for folder in sorted(folders):
        depth = len(folder.parts)
        line = describe(folder)
        if line and depth <= MOST_DEPTH.get(folder.parts[0], 2):
            lines.append(f"{'  ' * (depth - 1) + folder.name + '/':<22} {line}".rstrip())
    return "\n".join(lines)


def describe(folder: Path) -> str:
    """Give a folder's line: from the list above, or from its package's docstring."""
    if folder.as_posix() in DESCRIBED:
        return DESCRIBED[folder.as_posix()]
    package = REPOSITORY / folder / "__init__.py"
    if not package.is_file():
        return ""
    docstring = ast.get_docstring(ast.parse(package.read_text())) or ""
    return " ".join(docstring.split("\n\n")[0].split()).rstrip(".")


def with_tree(readme: str) -> str:
    """Put the tree between its marks."""
    before, _, rest = readme.partition(BEGIN)
    _, _, after = rest.partition(END)
    if not rest or END not in readme:
        raise SystemExit(f"README.md: the marks {BEGIN} and {END} are missing; put them where the tree goes")
    return f"{before}{BEGIN}\n```text\n{tree()}\n```\n{END}{after}"


def main() -> int:
    """Print the tree, or write it into the README."""
    parser = argparse.ArgumentParser(description="the README's tree")
    parser.add_argument("--write", action="store_true", help="put it into README.md")
    if parser.parse_args().write:
        path = REPOSITORY / "README.md"
        path.write_text(with_tree(path.read_text()))
    else:
        print(tree())
    return 0


if __name__ == "__main__":
    sys.exit(main())
