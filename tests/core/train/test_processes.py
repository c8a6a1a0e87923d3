"""The same training in one process and in two: torchrun and accelerate's launcher start the same command."""

import json
import os
import shutil
import subprocess
import sys

import pytest
from tests.core.learner.world import PLUGIN, TRAIN, installed, make_run, write_recipe

from tercet.train import adapters
from tercet.train.log import read_log
from tercet.train.run import adapter_folder, train_recipe

SPLIT = f"{TRAIN}, accumulate: 2"
LAUNCHERS = {
    "torchrun": ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"],
    # on a CPU accelerate starts one process; several need MPI there
    "accelerate": ["-m", "accelerate.commands.launch", "--cpu", "--num_processes=1", "--num_machines=1",
                   "--mixed_precision=bf16", "--dynamo_backend=no", "--num_cpu_threads_per_process=1"],
}  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    with installed():
        make_run(folder)
        write_recipe(folder, SPLIT)
    return folder


def launched(folder, launcher, *arguments):
    environment = {**os.environ, "PYTHONPATH": str(PLUGIN), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, *LAUNCHERS[launcher], "-m", "tercet", "train", "learn.yaml", "--json", *arguments]
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=240, check=False
    )


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_processes_of_a_launcher_train_the_same_adapter_as_one(made, tmp_path, launcher):
    alone, together = shutil.copytree(made, tmp_path / "alone"), shutil.copytree(made, tmp_path / "together")
    with installed():
        expected = train_recipe(write_recipe(alone, SPLIT), threads=1)
        recipe = write_recipe(together, SPLIT)
        found = launched(together, launcher)
        assert found.returncode == 0, found.stderr[-3000:]
        assert json.loads(found.stdout)["digest"] == expected.digest
        folder = adapter_folder(recipe, together / "runs/learn")
        assert adapters.read_card(folder) == adapters.read_card(expected.adapter)
    first, second = ([row["loss"] for row in read_log(one / "runs/learn/training")] for one in (alone, together))
    assert first == pytest.approx(second)
    again = launched(together, launcher)
    assert (again.returncode, "already trained" in again.stderr) == (0, True), again.stderr[-3000:]


def test_a_step_too_small_for_the_processes_names_the_fix(made, tmp_path):
    folder = shutil.copytree(made, tmp_path / "small")
    with installed():
        write_recipe(folder, TRAIN.replace("micro_batch: 4", "micro_batch: 1"))
    found = launched(folder, "torchrun")
    assert found.returncode != 0
    assert "a step has 1 rows for 2 processes; raise train.accumulate to 2 or more" in found.stderr


def test_no_thread_of_a_process_group_outlives_the_interpreter(tmp_path):
    """Gloo's threads abort a process that ends around them, now and then: so they must be gone before."""
    script = tmp_path / "ends.py"
    script.write_text(
        "import atexit, os, sys\n"
        "from pathlib import Path\n"
        "def threads():\n"
        "    return [one.read_text() for one in Path('/proc/self/task').glob('*/comm') if 'gloo' in one.read_text()]\n"
        "def say(when):\n"
        "    (Path(sys.argv[1]) / f'{when}-{os.environ[\"RANK\"]}').write_text(f'{len(threads())}')\n"
        "atexit.register(say, 'end')\n"
        "from tercet.train.processes import Processes\n"
        "processes = Processes('fp32')\n"
        "import peft\n"  # whoever imports torch's functions of a group after it was made may hold it
        "processes.sum([1.0])\n"
        "say('work')\n"
    )
    command = [sys.executable, *LAUNCHERS["torchrun"], str(script), str(tmp_path)]
    found = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert found.returncode == 0, found.stderr[-3000:]
    held = {name: (tmp_path / name).read_text() for name in ("work-0", "work-1", "end-0", "end-1")}
    assert int(held["work-0"]) and int(held["work-1"]), held
    assert (held["end-0"], held["end-1"]) == ("0", "0"), held
