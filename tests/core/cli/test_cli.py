import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

TERCET = str(Path(sys.executable).with_name("tercet"))
RECIPE = "version: 1\nname: small\nmodalities:\n  image: {pictures: 12}\n"


def tercet(*arguments, cwd, **environment):
    return subprocess.run(
        [TERCET, *arguments],
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "small.yaml").write_text(RECIPE)
    (tmp_path / "empty.yaml").write_text("")
    (tmp_path / "typo.yaml").write_text(RECIPE.replace("pictures", "pictrues"))
    (tmp_path / "terms.yaml").write_text(RECIPE + "sources: {terms: gone.txt}\n")
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["run", "none.yaml"], 2, "no such file; start one with: tercet init"),
        (["run", "empty.yaml"], 2, "found an empty file"),
        (["validate", "typo.yaml"], 2, "did you mean 'pictures'?"),
        (["validate", "terms.yaml"], 2, "gone.txt: no such file"),
        (["preview", "typo.yaml"], 2, "did you mean 'pictures'?"),
        (["validate"], 2, "no recipe given"),
        (["status", "nowhere"], 1, "no journal here"),
        (["report", "nowhere"], 1, "no journal here"),
        (["export", "nowhere"], 1, "no manifest.json here"),
        (["models", "get", "pkg:none"], 1, "not a pinned package"),
        (["bogus"], 2, "No such command"),
        (["run", "small.yaml", "--wokers", "1"], 2, "No such option"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_is_one_message_and_a_stable_code(folder, arguments, code, said):
    done = tercet(*arguments, cwd=folder)
    assert (done.returncode, said in done.stderr) == (code, True), done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    as_json = tercet(*arguments, "--json", cwd=folder)
    assert json.loads(as_json.stdout)["exit_code"] == code


def test_every_verb_prints_one_json_object_and_no_control_characters(folder):
    for arguments in (
        ["init", "new"],
        ["validate", "small.yaml"],
        ["models", "list"],
        ["preview", "small.yaml", "-n", "2"],
        ["run", "small.yaml", "--workers", "0"],
        ["status", "small.yaml"],
        ["report", "small.yaml"],
        ["export", "small.yaml", "--to", "jsonl"],
    ):
        done = tercet(*arguments, "--json", cwd=folder)
        assert done.returncode == 0, (arguments, done.stderr)
        assert isinstance(json.loads(done.stdout), dict)
        assert "\x1b" not in done.stdout + done.stderr


def test_what_init_writes_runs_as_it_stands_and_a_second_init_keeps_it(folder):
    assert tercet("init", "new", cwd=folder).returncode == 0
    assert tercet("run", "new/recipe.yaml", "--workers", "0", cwd=folder).returncode == 0
    again = tercet("init", "new", cwd=folder)
    assert (again.returncode, "is there already" in again.stderr) == (2, True)


def test_nothing_survived_is_code_three(folder):
    blank = "version: 1\nname: blank\nmodalities:\n  image: {pictures: 3, gates: {blank: {min_deviation: 128}}}\n"
    (folder / "blank.yaml").write_text(blank)
    done = tercet("run", "blank.yaml", "--workers", "0", cwd=folder)
    assert (done.returncode, "image: blank: blank (3)" in done.stderr) == (3, True), done.stderr


def test_an_interrupt_drains_and_leaves_with_130_and_the_next_run_goes_on(folder):
    (folder / "large.yaml").write_text(RECIPE.replace("small", "large").replace("12", "4000"))
    process = subprocess.Popen([TERCET, "run", "large.yaml"], cwd=folder, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while made(folder) == 0 and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=30)
    assert (process.returncode, "goes on from here" in stderr) == (130, True), stderr
    assert 0 < made(folder) < 4000


def made(folder):
    done = tercet("status", "large.yaml", "--json", cwd=folder)
    modalities = json.loads(done.stdout).get("modalities", {}) if done.returncode == 0 else {}
    return modalities.get("image", {}).get("made", 0)


def test_help_and_light_verbs_import_no_torch(folder):
    for verb in (["--help"], ["validate", "small.yaml"], ["status", "nowhere"], ["export", "nowhere"]):
        code = (
            "import sys; from tercet.cli.app import run_command; run_command(sys.argv[1:]);"
            "sys.exit(9 if 'torch' in sys.modules else 0)"
        )
        done = subprocess.run([sys.executable, "-c", code, *verb], cwd=folder, capture_output=True, check=False)
        assert done.returncode == 0, verb
