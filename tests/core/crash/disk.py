"""A disk that forgets: it replays a traced run and keeps apart what a program sees and what would survive a power cut.

The strictest reading of POSIX: bytes survive once their file was fsynced, and a name (created, renamed or removed) once
its folder was. What wasn't fsynced is lost.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from tests.core.crash.trace import Call

FOLDER_FD = "AT_FDCWD"


@dataclass(eq=False)
class File:
    seen: bytearray = field(default_factory=bytearray)
    durable: bytes = b""


@dataclass(eq=False)
class Folder:
    seen: dict[str, File | Folder] = field(default_factory=dict)
    durable: dict[str, File | Folder] = field(default_factory=dict)


class Disk:
    """Replays calls below `root`, which exists; `steps` counts those that changed something."""

    def __init__(self, root: Path) -> None:
        self.root = PurePosixPath(root)
        self.top = Folder()
        self.open: dict[int, tuple[PurePosixPath, File | Folder | None, int]] = {}
        self.steps: Counter[str] = Counter()

    def apply(self, call: Call) -> bool:
        """Replay one call; say whether it touched the disk."""
        touched = bool(getattr(self, f"_{call.name}")(call))
        self.steps[call.name] += touched
        return touched

    def path_of(self, descriptor: int) -> PurePosixPath | None:
        """Give the path under which a descriptor was opened, if it lies below the root."""
        held = self.open.get(descriptor)
        return held[0] if held and held[1] is not None else None

    def write_survivors(self, target: Path, *, names_survive: bool = False) -> None:
        """Write what survives a power cut at this moment.

        With `names_survive` every change of a folder reached the disk at once and only bytes wait for their fsync, as
        on a file system that journals its metadata alone.
        """
        _write(self.top, target, names_survive)

    def is_durable(self, path: Path) -> bool:
        """Say whether a file, its bytes and every folder above it would survive."""
        node: File | Folder | None = self.top
        for part in PurePosixPath(path).relative_to(self.root).parts:
            node = node.durable.get(part) if isinstance(node, Folder) else None
        return isinstance(node, File) and node.durable == bytes(node.seen)

    # -- the calls -------------------------------------------------------------------------------------------------

    def _openat(self, call: Call) -> bool:
        path = self._path(call)
        parent, name = self._parent(path)
        node: File | Folder | None = self.top if path == self.root else None
        changed = False
        if parent is not None:
            if name not in parent.seen and "O_CREAT" in call.flags:
                parent.seen[name] = File()
                changed = True
            node = parent.seen.get(name)
            if isinstance(node, File) and "O_TRUNC" in call.flags:
                node.seen.clear()
                changed = True
        self.open[call.result] = (path, node, 0)
        return changed

    def _close(self, call: Call) -> bool:
        self.open.pop(call.numbers[0], None)
        return False

    def _write(self, call: Call) -> bool:
        path, node, at = self.open.get(call.numbers[0], (self.root, None, 0))
        if not isinstance(node, File):
            return False
        self._put(node, at, call.texts[0][: call.result])
        self.open[call.numbers[0]] = (path, node, at + call.result)
        return True

    def _pwrite64(self, call: Call) -> bool:
        _, node, _ = self.open.get(call.numbers[0], (self.root, None, 0))
        if not isinstance(node, File):
            return False
        self._put(node, call.numbers[-1], call.texts[0][: call.result])
        return True

    def _ftruncate(self, call: Call) -> bool:
        _, node, _ = self.open.get(call.numbers[0], (self.root, None, 0))
        if not isinstance(node, File):
            return False
        size = call.numbers[1]
        node.seen[:] = node.seen[:size].ljust(size, b"\0")
        return True

    def _fsync(self, call: Call) -> bool:
        _, node, _ = self.open.get(call.numbers[0], (self.root, None, 0))
        if isinstance(node, File):
            node.durable = bytes(node.seen)
        elif isinstance(node, Folder):
            node.durable = dict(node.seen)
        return node is not None

    _fdatasync = _fsync

    def _rename(self, call: Call) -> bool:
        source, source_name = self._parent(PurePosixPath(call.texts[0].decode()))
        target, target_name = self._parent(PurePosixPath(call.texts[1].decode()))
        if source is None or target is None:
            return False
        target.seen[target_name] = source.seen.pop(source_name)
        return True

    def _mkdir(self, call: Call) -> bool:
        parent, name = self._parent(PurePosixPath(call.texts[0].decode()))
        if parent is None:
            return False
        parent.seen[name] = Folder()
        return True

    def _unlink(self, call: Call) -> bool:
        parent, name = self._parent(self._path(call))
        return parent is not None and parent.seen.pop(name, None) is not None

    _unlinkat = _unlink

    # -- paths -----------------------------------------------------------------------------------------------------

    def _path(self, call: Call) -> PurePosixPath:
        path = PurePosixPath(call.texts[0].decode())
        relative_to_descriptor = call.name.endswith("at") and FOLDER_FD not in call.flags
        return self.open[call.numbers[0]][0] / path if relative_to_descriptor else path

    def _parent(self, path: PurePosixPath) -> tuple[Folder | None, str]:
        """Find the folder that holds `path`, or None where it lies outside."""
        if not path.is_relative_to(self.root) or path == self.root:
            return None, ""
        node: File | Folder | None = self.top
        for part in path.parent.relative_to(self.root).parts:
            node = node.seen.get(part) if isinstance(node, Folder) else None
        return (node if isinstance(node, Folder) else None), path.name

    @staticmethod
    def _put(node: File, at: int, data: bytes) -> None:
        if len(node.seen) < at:
            node.seen.extend(bytes(at - len(node.seen)))
        node.seen[at : at + len(data)] = data


def _write(folder: Folder, target: Path, names_survive: bool) -> None:
    target.mkdir(parents=True, exist_ok=True)
    for name, node in (folder.seen if names_survive else folder.durable).items():
        if isinstance(node, File):
            (target / name).write_bytes(node.durable)
        else:
            _write(node, target / name, names_survive)
