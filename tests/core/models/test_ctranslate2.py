"""A CTranslate2 file is read as written, and a hostile one is refused by name and byte, whatever it says."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tercet.errors import ModelError
from tercet.models.convert_whisper import convert
from tercet.models.ctranslate2 import DTYPES, parse_model, read_model


def string(text: str) -> bytes:
    return struct.pack("<H", len(text) + 1) + text.encode() + b"\0"


def tensor(name: str, shape: tuple[int, ...], code: int, data: bytes, num_bytes: int | None = None) -> bytes:
    sizes = struct.pack(f"<B{len(shape)}I", len(shape), *shape)
    return string(name) + sizes + struct.pack("<BI", code, len(data) if num_bytes is None else num_bytes) + data


def model(*tensors: bytes, aliases: tuple[tuple[str, str], ...] = (), version: int = 6) -> bytes:
    head = struct.pack("<I", version) + string("WhisperSpec") + struct.pack("<II", 3, len(tensors))
    tail = struct.pack("<I", len(aliases)) + b"".join(string(alias) + string(name) for alias, name in aliases)
    return head + b"".join(tensors) + tail


GOOD = model(
    tensor("a", (2, 3), 4, np.arange(6, dtype=np.float16).tobytes()),
    tensor("scalar", (), 2, b"\x07\0"),
    aliases=(("b", "a"),),
)


def test_reads_shapes_types_and_aliases() -> None:
    found = parse_model(memoryview(GOOD))
    assert (found.spec, found.revision, set(found.tensors)) == ("WhisperSpec", 3, {"a", "b", "scalar"})
    np.testing.assert_array_equal(found.tensors["b"], np.arange(6, dtype=np.float16).reshape(2, 3))
    assert int(found.tensors["scalar"]) == 7


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (model(version=5), "version 5"),
        (model(tensor("a", (2**32 - 1, 2**32 - 1, 4), 4, b"")), "can't have 0 bytes"),  # wraps to 0 at 64 bits
        (model(tensor("a", (3,), 4, b"xx")), "can't have 2 bytes"),
        (model(tensor("a", (1,), 9, b"xx")), "unknown type 9"),
        (model(tensor("a", (1,) * 200, 1, b"x")), "200 dimensions"),
        (model(tensor("a", (2**31,), 0, b"", num_bytes=2**31)), "can't have"),
        (model(tensor("a", (2**31,), 1, b"", num_bytes=2**31)), "bytes wanted"),
        (model(tensor("a", (1,), 1, b"x"), tensor("a", (1,), 1, b"y")), "occurs twice"),
        (model(aliases=(("b", "a"),)), "names no tensor"),
        (GOOD + b"\0", "1 bytes too many"),
        (b"", "bytes wanted"),
    ],
)
def test_an_inconsistent_file_is_refused_with_its_byte(content: bytes, what: str) -> None:
    with pytest.raises(ModelError, match=rf"byte \d+: .*{what}"):
        parse_model(memoryview(content))


@given(st.integers(0, len(GOOD) - 1), st.binary(min_size=1, max_size=9), st.integers(0, len(GOOD)))
def test_a_damaged_file_is_read_or_refused_and_nothing_else(at: int, patch: bytes, end: int) -> None:
    damaged = (GOOD[:at] + patch + GOOD[at + len(patch) :])[:end]
    _read_or_refuse(damaged)


@given(st.binary(max_size=200))
def test_any_bytes_after_a_true_version_are_read_or_refused(rest: bytes) -> None:
    _read_or_refuse(struct.pack("<I", 6) + rest)


def _read_or_refuse(content: bytes) -> None:
    try:
        found = parse_model(memoryview(content))
    except ModelError:
        return
    for value in found.tensors.values():
        assert value.dtype in DTYPES.values()
        assert value.nbytes <= len(content)


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.bin").touch()
    with pytest.raises(ModelError, match="empty file"):
        read_model(tmp_path / "model.bin")


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (model().replace(b"Whisper", b"Decoder"), "DecoderSpec"),
        (model(tensor("x/weight_scale", (1,), 1, b"x")), "quantised"),
        (model(), "decoder/embeddings/weight"),
    ],
)
def test_a_model_that_is_no_float_whisper_is_refused(tmp_path: Path, content: bytes, what: str) -> None:
    (tmp_path / "model.bin").write_bytes(content)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ModelError, match=what):
        convert(tmp_path, tmp_path / "out")
