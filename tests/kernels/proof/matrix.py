"""The tables of planted faults: what caught each, and kernel by kind, where no field may be empty."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

from tests.kernels.proof.planting import KINDS, Caught, Fault

Reasons = Mapping[tuple[str, str], str]
NOTHING = "**nothing**"


def holes(faults: Iterable[Fault], reasons: Reasons, kernels: Collection[str]) -> list[str]:
    """Say which kernel lacks a fault of which kind, and which reason is beside the point."""
    wanted = {(kernel, kind) for kernel in kernels for kind in KINDS}
    planted, excused = {(fault.kernel, fault.kind) for fault in faults}, set(reasons)
    wrong = {
        "no fault, and no reason": wanted - planted - excused,
        "a fault, and a reason why there is none": planted & excused,
        "no such kernel or kind": (planted | excused) - wanted,
    }
    return [f"{kernel}, {kind}: {complaint}" for complaint, fields in wrong.items() for kernel, kind in sorted(fields)]


def details(caught: Sequence[tuple[Fault, Caught]]) -> str:
    """Lay out what caught each fault."""
    rows = [[fault.kernel, fault.kind, fault.what, by.proof or NOTHING, by.by] for fault, by in caught]
    return lay_out(["kernel", "kind", "fault", "caught by", "in"], rows)


def matrix(caught: Sequence[tuple[Fault, Caught]], reasons: Reasons) -> str:
    """Lay out the kernels by the kinds: what caught the faults of a field, a dash where there is a reason for none."""
    fields: dict[tuple[str, str], list[str]] = {field: ["–"] for field in reasons}
    for fault, by in caught:
        fields.setdefault((fault.kernel, fault.kind), []).append(by.proof or NOTHING)
    kernels = sorted({fault.kernel for fault, _ in caught})
    rows = [
        [kernel, *(", ".join(dict.fromkeys(fields.get((kernel, kind), []))) for kind in KINDS)] for kernel in kernels
    ]
    return lay_out(["kernel", *KINDS], rows)


def exceptions(reasons: Reasons, kernels: Collection[str]) -> str:
    """Lay out why the kernels have no fault of a kind."""
    rows = [[kernel, kind, reason] for (kernel, kind), reason in reasons.items() if kernel in kernels]
    return lay_out(["kernel", "no fault of kind", "because it"], rows)


def lay_out(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Lay out rows as Markdown."""
    return "\n".join(f"| {' | '.join(row)} |" for row in [head, ["---"] * len(head), *rows])
