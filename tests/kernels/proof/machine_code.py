"""What the compilers made of a kernel: registers, spills, shared memory, and the instructions that matter.

NVIDIA: ptxas tells registers and spills (cuobjdump's LOCAL stays 0 when a kernel spills to the stack), nvdisasm the
instructions. AMD: both stand in the assembly that LLVM wrote.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TENSOR_CORE = ("HMMA", "IMMA", "HGMMA", "IGMMA", "UTCHMMA", "UTCQMMA", "UTCIMMA")
SPILLS = re.compile(r"(\d+) bytes spill stores, (\d+) bytes spill loads")
REGISTERS = re.compile(r"Used (\d+) registers")
SASS = re.compile(r"/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9_.]*)")
AMD_MEMORY = re.compile(r"\b(?:global|buffer|flat)_(load|store)_(?:lds_)?([a-z0-9]+)")
AMD_MATRIX = re.compile(r"\bv_s?mfmac?_")
WIDE = 16  # bytes: 128 bits, the most that one thread moves at once
NVIDIA_BYTES = {"128": 16, "64": 8, "U16": 2, "S16": 2, "U8": 1, "S8": 1}  # 4 where the name says nothing
AMD_BYTES = {"dwordx4": 16, "dwordx3": 12, "dwordx2": 8, "dword": 4, "ushort": 2, "sshort": 2, "short": 2}
AMD_BYTES |= {"ubyte": 1, "sbyte": 1, "byte": 1}


@dataclass(frozen=True)
class Facts:
    """One compiled kernel; instructions are counted in the code, whether in a loop or not.

    `wide_percent` is the share of the loaded bytes that come by 128-bit loads. On AMD `registers` are vector registers.
    """

    registers: int
    spilled_bytes: int
    shared_bytes: int
    tensor_core: int
    loads: int
    wide_loads: int
    wide_percent: int
    stores: int
    wide_stores: int


def facts_of(compiled: Any, target: str, ptxas_log: str) -> Facts:
    """Read the facts of a kernel that Triton compiled for `target`."""
    shared_bytes = compiled.metadata.shared
    if target.startswith("gfx"):
        return amd_facts(compiled.asm["amdgcn"], shared_bytes)
    return nvidia_facts(sass(compiled.asm["cubin"]), shared_bytes, ptxas_log)


def nvidia_facts(instructions: Counter[str], shared_bytes: int, ptxas_log: str) -> Facts:
    """Count in SASS; a load straight to shared memory (LDGSTS) is a load from global memory too."""
    spills, registers = SPILLS.search(ptxas_log), REGISTERS.search(ptxas_log)
    if not spills or not registers:
        raise ValueError(f"ptxas said nothing of registers and spills: {ptxas_log[:500]!r}")
    loads, stores, tensor_core = Counter[int](), Counter[int](), 0
    for instruction, number in instructions.items():
        name, *details = instruction.split(".")
        width = next((NVIDIA_BYTES[detail] for detail in details if detail in NVIDIA_BYTES), 4)
        if name in {"LDG", "LDGSTS"}:
            loads[width] += number
        elif name == "STG":
            stores[width] += number
        elif name in TENSOR_CORE:
            tensor_core += number
    spilled_bytes = max(int(spills[1]), int(spills[2]))
    return counted(int(registers[1]), spilled_bytes, shared_bytes, tensor_core, loads, stores)


def amd_facts(assembly: str, shared_bytes: int) -> Facts:
    """Count in AMD's assembly."""
    loads, stores = Counter[int](), Counter[int]()
    for found in AMD_MEMORY.finditer(assembly):
        (loads if found[1] == "load" else stores)[AMD_BYTES[found[2]]] += 1
    registers, spilled_bytes = amd_number(assembly, "vgpr_count"), amd_number(assembly, "private_segment_fixed_size")
    return counted(registers, spilled_bytes, shared_bytes, len(AMD_MATRIX.findall(assembly)), loads, stores)


def counted(
    registers: int, spilled_bytes: int, shared_bytes: int, tensor_core: int, loads: Counter[int], stores: Counter[int]
) -> Facts:
    """Put the facts together; `loads` and `stores` count instructions by their bytes."""
    loaded_bytes = sum(width * number for width, number in loads.items())
    return Facts(
        registers=registers,
        spilled_bytes=spilled_bytes,
        shared_bytes=shared_bytes,
        tensor_core=tensor_core,
        loads=loads.total(),
        wide_loads=loads[WIDE],
        wide_percent=100 * WIDE * loads[WIDE] // max(loaded_bytes, 1),
        stores=stores.total(),
        wide_stores=stores[WIDE],
    )


def amd_number(assembly: str, name: str) -> int:
    """Read one number from the kernel's metadata."""
    found = re.search(rf"\.{name}:\s+(\d+)", assembly)
    if not found:
        raise ValueError(f"the assembly doesn't give .{name}")
    return int(found[1])


def sass(cubin: bytes) -> Counter[str]:
    """Count the instructions of a cubin by their full names, such as LDG.E.128."""
    import triton

    disassembler = Path(triton.__file__).parent / "backends/nvidia/bin/nvdisasm"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        text = subprocess.run([disassembler, "-c", file.name], capture_output=True, text=True, check=True).stdout
    return Counter(found[1] for found in SASS.finditer(text))
