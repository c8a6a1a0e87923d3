import json

import pytest

from tercet.errors import SourceError, UsageError
from tercet.files import safe_join
from tercet.sources import Term, read_documents, read_examples, read_terms


def test_terms_come_from_lines_or_csv_with_or_without_a_byte_order_mark(tmp_path):
    lines = tmp_path / "terms.txt"
    lines.write_bytes(b"\xef\xbb\xbf# drugs\naspirin\n  St  John's wort \n")
    assert read_terms(lines) == [Term("aspirin"), Term("St John's wort")]
    table = tmp_path / "terms.csv"
    table.write_text("term,spoken,category\nXR-7,ex are seven,part\naspirin,,\n")
    assert read_terms(table) == [Term("XR-7", "ex are seven", "part"), Term("aspirin")]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        (
            "t.txt",
            b"aspirin\nna\xefve\n",
            r"t\.txt:2: byte 0xef is not UTF-8; if the file is Latin-1, convert it: iconv",
        ),
        ("t.txt", b"aspirin\n\nibuprofen\n", r"t\.txt:2: empty term"),
        ("t.txt", b"Aspirin\nibuprofen\naspirin\n", r"t\.txt:3: duplicate term 'aspirin' \(first in line 1\)"),
        ("t.txt", "cafe\u0301\ncaf\u00e9\n".encode(), r"t\.txt:2: duplicate term"),
        ("t.txt", b"", r"t\.txt: no terms"),
        ("t.txt", b"# only a comment\n", r"t\.txt: no terms"),
        ("t.txt", b"a" * 121, r"t\.txt:1: term of 121 characters"),
        ("t.txt", b"bell\x07\n", r"t\.txt:1: term 'bell\\x07' holds an unprintable"),
        ("t.csv", b"name\naspirin\n", r"t\.csv:1: header \['name'\]; it must be among term, spoken, category"),
        ("t.csv", b"term\nacid, acetylsalicylic\n", r"t\.csv:2: more cells than the header"),
        ("t.csv", b'term\n"asp\n', r"t\.csv:1: not CSV"),
    ],
)
def test_a_bad_term_list_names_line_value_and_fix(tmp_path, name, content, said):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(SourceError, match=said):
        read_terms(tmp_path / name)


def test_missing_sources_say_where_paths_start(tmp_path):
    with pytest.raises(SourceError, match=r"none\.txt: no such file; paths in a recipe start at the recipe's folder"):
        read_terms(tmp_path / "none.txt")
    with pytest.raises(SourceError, match="no such folder"):
        read_documents(tmp_path / "none")


def test_documents_are_read_in_path_order_and_an_empty_one_is_named(tmp_path):
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "x.md").write_text("second")
    (tmp_path / "a.txt").write_text("first\n")
    (tmp_path / "c.pdf").write_bytes(b"%PDF")
    assert [(document.name, document.text) for document in read_documents(tmp_path)] == [
        ("a.txt", "first"),
        ("b/x.md", "second"),
    ]
    (tmp_path / "d.md").write_text(" \n")
    with pytest.raises(SourceError, match=r"d\.md: empty document"):
        read_documents(tmp_path)


def test_examples_come_from_jsonl_or_a_folder_with_a_manifest(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"messages": []}\n\n{"messages": [1]}\n')
    assert [example.fields for example in read_examples(tmp_path / "a.jsonl")] == [{"messages": []}, {"messages": [1]}]
    (tmp_path / "x.wav").write_bytes(b"RIFF")
    (tmp_path / "manifest.tsv").write_text('file\ttext\nx.wav\tsay "hello"\n')
    (example,) = read_examples(tmp_path)
    assert example.fields == {"text": 'say "hello"'}
    assert example.file == str(tmp_path / "x.wav")
    assert len(example.file_digest) == 32


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([{"text": "no file"}], "manifest.jsonl:1: no `file`"),
        ([{"file": "gone.wav", "text": "x"}], "manifest.jsonl:1: file 'gone.wav' is not in"),
        ([], "no examples in it"),
    ],
)
def test_a_bad_manifest_names_the_line(tmp_path, rows, said):
    (tmp_path / "manifest.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(SourceError, match=said):
        read_examples(tmp_path)


def test_a_path_never_leaves_its_folder(tmp_path):
    inside = tmp_path / "in"
    inside.mkdir()
    (inside / "link").symlink_to(tmp_path)
    for hostile in ("../secret", "/etc/passwd", "link/secret"):
        with pytest.raises(UsageError, match="leads outside"):
            safe_join(inside, hostile)
    assert safe_join(inside, "a/b") == (inside / "a" / "b").resolve()
