"""Read a CTranslate2 `model.bin`: a header, named tensors, and aliases of tensors. Nothing in it is trusted.

Layout (little-endian), as CTranslate2 4 writes it: u32 binary version, string spec, u32 revision, u32 count, then per
tensor: string name, u8 rank, u32 x rank shape, u8 dtype, u32 bytes, data; then u32 count of aliases, each two strings.
A string is a u16 length, that many bytes, the last of them NUL.
"""

from __future__ import annotations

import math
import mmap
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from tercet.errors import ModelError

Array = npt.NDArray[Any]
BINARY_VERSION = 6
MAX_RANK = 8
# bfloat16 (5) has no numpy type and none of the packages uses it
DTYPES: dict[int, np.dtype[Any]] = {
    0: np.dtype("<f4"),
    1: np.dtype("i1"),
    2: np.dtype("<i2"),
    3: np.dtype("<i4"),
    4: np.dtype("<f2"),
}


@dataclass(frozen=True, slots=True)
class CTranslate2Model:
    """The content of one `model.bin`; the tensors are read-only views of the mapped file."""

    spec: str
    revision: int
    tensors: Mapping[str, Array]


def read_model(path: Path) -> CTranslate2Model:
    """Read a model file.

    Raises:
        ModelError: the file is cut off, too long, of another version, or inconsistent; names the byte.
    """
    with path.open("rb") as file:
        if path.stat().st_size == 0:
            raise ModelError(f"{path.name}: empty file; fetch it again")
        return parse_model(memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)), path.name)


def parse_model(content: memoryview, name: str = "model.bin") -> CTranslate2Model:
    """Parse the bytes of a model file (see `read_model`)."""
    cursor = _Cursor(content, name)
    version = cursor.number("I")
    if version != BINARY_VERSION:
        cursor.refuse(f"binary version {version} is not {BINARY_VERSION}")
    spec = cursor.string()
    revision = cursor.number("I")
    tensors: dict[str, Array] = {}
    for _ in range(cursor.number("I")):
        tensor_name = cursor.string()
        if tensor_name in tensors:
            cursor.refuse(f"tensor {tensor_name!r} occurs twice")
        tensors[tensor_name] = cursor.tensor(tensor_name)
    for _ in range(cursor.number("I")):
        alias, original = cursor.string(), cursor.string()
        if original not in tensors or alias in tensors:
            cursor.refuse(f"alias {alias!r} of {original!r} names no tensor, or hides one")
        tensors[alias] = tensors[original]
    if cursor.at != len(content):
        cursor.refuse(f"{len(content) - cursor.at} bytes too many")
    return CTranslate2Model(spec, revision, tensors)


class _Cursor:
    """A place in the file that can't pass its end."""

    def __init__(self, content: memoryview, name: str) -> None:
        self.content = content
        self.name = name
        self.at = 0

    def refuse(self, what: str) -> NoReturn:
        raise ModelError(f"{self.name}: byte {self.at}: {what}; this is not a CTranslate2 model we can read")

    def take(self, count: int) -> memoryview:
        left = len(self.content) - self.at
        if count > left:
            self.refuse(f"{count} bytes wanted, {left} left")
        self.at += count
        return self.content[self.at - count : self.at]

    def number(self, kind: str) -> int:
        layout = struct.Struct(f"<{kind}")
        return int(layout.unpack(self.take(layout.size))[0])

    def string(self) -> str:
        raw = bytes(self.take(self.number("H")))
        if not raw.endswith(b"\0"):
            self.refuse("a string doesn't end in NUL")
        try:
            return raw[:-1].decode("ascii")
        except UnicodeDecodeError:
            self.refuse(f"name {raw[:20]!r} isn't ASCII")

    def tensor(self, name: str) -> Array:
        rank = self.number("B")
        if rank > MAX_RANK:
            self.refuse(f"tensor {name!r} has {rank} dimensions")
        shape = [self.number("I") for _ in range(rank)]
        code, count = self.number("B"), self.number("I")
        if code not in DTYPES:
            self.refuse(f"tensor {name!r} has unknown type {code}")
        dtype = DTYPES[code]
        # math.prod is exact: a product that wraps at 64 bits can't slip through
        if math.prod(shape) * dtype.itemsize != count:
            self.refuse(f"tensor {name!r} of shape {shape} can't have {count} bytes")
        flat: Array = np.frombuffer(self.take(count), dtype=dtype)
        return flat.reshape(shape)
