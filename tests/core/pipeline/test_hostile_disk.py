import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tercet.errors import CorruptError
from tercet.pipeline.run import run_recipe
from tercet.store.manifest import verify

RUN = """
import sys
from pathlib import Path
from tercet.errors import TercetError
from tercet.recipe import load_recipe
from tercet.pipeline.run import run_recipe
try:
    run_recipe(load_recipe(sys.argv[1]), workers=int(sys.argv[2]))
except TercetError as error:
    print(type(error).__name__, error)
    sys.exit(error.exit_code)
"""


def shards(run_dir: Path) -> dict[str, bytes]:
    return {path.relative_to(run_dir).as_posix(): path.read_bytes() for path in sorted(run_dir.rglob("*.parquet"))}


def obeying_permissions() -> list[str]:
    """Make root obey permission bits too."""
    return ["setpriv", "--bounding-set", "-dac_override,-dac_read_search"] if os.geteuid() == 0 else []


@pytest.mark.parametrize("limit", [30_000, 120_000, 250_000], ids=["journal", "blobs", "shards"])
@pytest.mark.parametrize("workers", [0, 1])
def test_a_full_disk_is_a_message_and_the_run_goes_on_once_there_is_room(write_recipe, tmp_path, limit, workers):
    # a limit on file sizes stands in for a full disk: the same calls fail, at the same places
    recipe = write_recipe("items: 40, size: 12000")
    done = subprocess.run(
        [sys.executable, "-c", RUN, str(recipe.path), str(workers)],
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert "StoreError" in done.stdout
    assert "free space or fix the permissions, then run again" in done.stdout
    assert "Traceback" not in done.stderr
    result = run_recipe(recipe, workers=0)
    assert shards(result.run_dir) == shards(run_recipe(recipe, tmp_path / "whole", workers=0).run_dir)


def test_a_read_only_folder_is_a_message(write_recipe, tmp_path):
    recipe = write_recipe("items: 5")
    locked = tmp_path / "runs"
    locked.mkdir(mode=0o555)
    done = subprocess.run(
        [*obeying_permissions(), sys.executable, "-c", RUN, str(recipe.path), "0"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, "Permission denied" in done.stdout) == (1, True), done.stdout + done.stderr
    locked.chmod(0o755)


def test_a_corrupt_shard_is_named_with_both_digests(write_recipe):
    run_dir = run_recipe(write_recipe("items: 5"), workers=0).run_dir
    shard = next((run_dir / "shards").rglob("*.parquet"))
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(bytes(data))
    (damage,) = verify(run_dir)
    assert str(damage).startswith(shard.relative_to(run_dir).as_posix())
    assert damage.expected in str(damage)
    assert damage.found in str(damage)


def test_a_corrupt_blob_is_named_by_its_digest_and_made_anew_once_removed(write_recipe, monkeypatch, tmp_path):
    recipe = write_recipe("items: 6, gates: {odd: {every: 100}}")
    run_dir = tmp_path / "runs" / "probe"

    def stop_before_gates(self, items, span):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("tercet.pipeline.making.Making.judge", stop_before_gates)
        with pytest.raises(KeyboardInterrupt):
            run_recipe(recipe, workers=0)
    blob = next(path for path in (run_dir / "blobs").rglob("*") if path.is_file())
    blob.write_bytes(b"rot")
    with pytest.raises(CorruptError, match=blob.name):
        run_recipe(recipe, workers=0)
    blob.unlink()
    healed = run_recipe(recipe, workers=0).run_dir
    assert shards(healed) == shards(run_recipe(recipe, tmp_path / "whole", workers=0).run_dir)


def test_a_run_without_its_blobs_heals_itself(write_recipe, monkeypatch, tmp_path):
    recipe = write_recipe("items: 6")
    with monkeypatch.context() as patch:
        patch.setattr(
            "tercet.pipeline.committing.Committing.commit", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt)
        )
        with pytest.raises(KeyboardInterrupt):
            run_recipe(recipe, workers=0)
    shutil.rmtree(tmp_path / "runs" / "probe" / "blobs")
    assert len(shards(run_recipe(recipe, workers=0).run_dir)) == 2


def test_a_full_disk_under_a_waiting_generator_is_the_same_one_message(write_recipe, tmp_path):
    recipe = write_recipe("items: 400, generator: waiting, size: 90")
    done = subprocess.run(
        [sys.executable, "-c", RUN, str(recipe.path), "0"],
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (150_000, 150_000)),
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert done.stdout.count("free space or fix the permissions, then run again") == 1
    assert done.stderr == ""
    assert len(shards(run_recipe(recipe, workers=0).run_dir)) == 2
