import contextlib
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tercet.errors import RecipeError
from tercet.recipe import load_recipe, schema
from tercet.yaml_lines import read_yaml

GOOD = "version: 1\nname: demo\n"


def write(folder: Path, text: str | bytes) -> Path:
    path = folder / "demo.yaml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("bugdet: {}", r"demo\.yaml:3: bugdet: unknown key; did you mean 'budget'\?"),
        ("train: {task: x, stpes: 4}", r"demo\.yaml:3: train\.stpes: unknown key; did you mean 'steps'\?"),
        ("train:\n  task: x\n  adapter:\n    rank: 0", r"demo\.yaml:6: train\.adapter\.rank: 0 is below 1"),
        ("seed: many", r'demo\.yaml:3: seed: "many": should be a valid integer'),
        ("use: comercial", r'demo\.yaml:3: use: "comercial" is not one of'),
        ("modalities: {imgae: {}}", r"demo\.yaml:3: modalities\.imgae: no such modality; did you mean 'image'\?"),
        ("modalities: 3", r"demo\.yaml:3: modalities: 3: should be a mapping of keys"),
        ("sources: {examples: [{modality: text, paht: x}]}", r"sources\.examples\.0\.paht: unknown key; did you mean"),
        ("name: again", r"demo\.yaml:3: name: given twice \(first in line 2\); keep one"),
        ("seed: !!python/object:os.system 3", r"demo\.yaml:3: not YAML: could not determine a constructor"),
        ("budget: &a {requests: 3}\nexport: *a", r"demo\.yaml:4: alias \*a: not allowed here"),
        ("? [a]\n: 3", r"demo\.yaml:3: a key that is itself a list"),
        ("evaluate: {margin: .inf}", r"demo\.yaml:3: evaluate\.margin: inf: should be a finite number"),
        ("train:\n  task: x\n  learning_rate: .nan", r"demo\.yaml:5: train\.learning_rate: nan: should be a finite"),
        ("modalities: {image: {gates: {blank: {min_deviation: .inf}}}}", r"blank\.min_deviation: inf: should be a fin"),
        ("modalities: {text: .inf}", r"demo\.yaml:3: modalities\.text: inf: should be a mapping of keys"),
        ("export: {formats: []}", r"demo\.yaml:3: export\.formats: \[\]: Tuple should have at least 1 item"),
        ("seed: [1", r"demo\.yaml:\d: not YAML"),
        ("1: 2", r"demo\.yaml:3: 1: "),
    ],
)
def test_a_fault_names_file_line_key_and_fix(tmp_path, more, said):
    with pytest.raises(RecipeError, match=said):
        load_recipe(write(tmp_path, GOOD + more))


def test_every_fault_is_told_at_once(tmp_path):
    with pytest.raises(RecipeError) as caught:
        load_recipe(write(tmp_path, GOOD + "seed: -1\nuse: x\nbugdet: 1\n"))
    assert len(str(caught.value).splitlines()) == 3


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "found an empty file"),
        ("- a", "found a list"),
        ("version: 2\nname: demo", "version: 2 is not 1"),
        ("name: demo", "version: missing"),
        (b"version: 1\nname: d\xe9mo", "byte 18 is not UTF-8; save the file as UTF-8"),
    ],
)
def test_a_file_that_is_no_recipe_is_refused(tmp_path, content, said):
    with pytest.raises(RecipeError, match=said):
        load_recipe(write(tmp_path, content))


def test_a_missing_file_and_a_folder_say_what_to_do(tmp_path):
    with pytest.raises(RecipeError, match="no such file; start one with: tercet init"):
        load_recipe(tmp_path / "none.yaml")
    with pytest.raises(RecipeError, match="is a folder"):
        load_recipe(tmp_path)


def test_a_byte_order_mark_is_no_fault(tmp_path):
    assert load_recipe(write(tmp_path, b"\xef\xbb\xbf" + GOOD.encode())).name == "demo"


def test_training_keys_leave_the_data_digest_alone_and_others_change_it(tmp_path):
    plain = load_recipe(write(tmp_path, GOOD)).digest
    assert (
        load_recipe(write(tmp_path, "# a comment\n" + GOOD + "train: {task: x}\nbudget: {tokens: 3}")).digest == plain
    )
    assert load_recipe(write(tmp_path, GOOD + "seed: 1")).digest != plain


@given(text=st.text(max_size=60))
def test_no_text_gives_anything_but_a_recipe_or_a_recipe_error(tmp_path_factory, text):
    path = tmp_path_factory.mktemp("yaml") / "any.yaml"
    path.write_text(text, encoding="utf-8", errors="replace")
    with contextlib.suppress(RecipeError):
        load_recipe(path)


def test_lines_point_at_the_deepest_known_key(tmp_path):
    located = read_yaml(write(tmp_path, "a:\n  b:\n    - c: 1\n    - d: 2\n"))
    assert located.place(("a", "b", 1, "d")) == "demo.yaml:4"
    assert located.place(("a", "b", 1, "unknown")) == "demo.yaml:4"
    assert located.place(("zzz",)) == "demo.yaml:1"


def test_the_schema_holds_every_installed_modality_and_forbids_extras():
    properties = schema()["$defs"]["Modalities"]["properties"]
    assert {"text", "image"} <= set(properties)
    assert schema()["additionalProperties"] is False


def test_importing_tercet_imports_no_torch():
    code = "import sys, tercet; tercet.load_recipe; sys.exit('torch' in sys.modules or 'pyarrow' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
