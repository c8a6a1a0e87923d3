"""The clips of a real run open without tercet: in datasets, in pyarrow alone, and in webdataset."""

import io
import json

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile

from tercet.export import export
from tercet.pipeline.run import run_recipe
from tercet.recipe import load_recipe
from tercet.store.shards import read_records
from tercet.testing import require_program

RECIPE = """
version: 1
name: small
sources: {terms: terms.txt}
modalities:
  audio:
    clips: 4
    engines: {pico: {}}
    held_out: {engine: null, phrase_clips: 0, engine_clips: 0, term_clips: 0}
    general: {clips: 0, replay_clips: 0}
    gates: {round_trip: null}
"""
RATE = 16_000


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("small")
    (folder / "terms.txt").write_text("metformin\nwarfarin\nsertraline\nramipril\nnaproxen\n")
    (folder / "small.yaml").write_text(RECIPE)
    return run_recipe(load_recipe(folder / "small.yaml"), workers=0).run_dir


@pytest.fixture(scope="module")
def expected(run_dir):
    """The clips' samples and texts by id, as tercet reads them."""
    records = list(read_records(run_dir, "audio"))
    assert len(records) == 4
    return {one.id: (soundfile.read(io.BytesIO(one.payload["audio"]))[0], one.payload["text"]) for one in records}


@pytest.fixture(scope="module")
def shards(run_dir):
    return sorted(str(path) for path in run_dir.glob("shards/audio/*/*.parquet"))


@pytest.fixture(scope="module")
def loaded(shards, tmp_path_factory):
    datasets = pytest.importorskip("datasets")
    cache = str(tmp_path_factory.mktemp("cache"))
    return datasets.load_dataset("parquet", data_files=shards, cache_dir=cache, split="train")


def test_datasets_loads_every_row_and_soundfile_decodes_the_first_and_the_last(loaded, expected):
    import datasets

    assert loaded.features["audio"] == datasets.Audio(sampling_rate=RATE)
    assert len(loaded) == len(expected)
    bare = loaded.cast_column("audio", datasets.Audio(decode=False))
    for at in (0, len(bare) - 1):
        samples, rate = soundfile.read(io.BytesIO(bare[at]["audio"]["bytes"]))
        assert rate == RATE
        assert np.array_equal(samples, expected[bare[at]["id"]][0])
        assert bare[at]["text"] == expected[bare[at]["id"]][1]


def test_datasets_decodes_the_first_and_the_last_row_by_itself_where_ffmpeg_is(loaded, expected):
    require_program("ffmpeg")
    for at in (0, len(loaded) - 1):
        row = loaded[at]
        samples, text = expected[row["id"]]
        assert row["audio"]["sampling_rate"] == RATE
        assert np.abs(row["audio"]["array"] - samples).max() < 1 / 32767
        assert row["text"] == text


def test_pyarrow_alone_reads_the_clips(shards, expected):
    rows = [row for shard in shards for row in pq.read_table(shard).to_pylist()]
    assert {row["id"] for row in rows} == set(expected)
    for row in rows:
        samples, text = expected[row["id"]]
        assert row["audio"]["path"] == f"{row['id']}.flac"
        assert np.array_equal(soundfile.read(io.BytesIO(row["audio"]["bytes"]))[0], samples)
        assert row["text"] == text
        assert row["seconds"] == pytest.approx(len(samples) / RATE, abs=1e-3)


# webdataset leaves the tar that it read to the garbage collector
@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
def test_webdataset_reads_the_exported_clips(run_dir, expected, tmp_path):
    webdataset = pytest.importorskip("webdataset")
    tars = [str(path) for path in export(run_dir, tmp_path / "out", ["webdataset"])]
    read = list(webdataset.WebDataset(tars, shardshuffle=False, empty_check=False))
    assert len(read) == len(expected)
    for sample in read:
        samples, text = expected[json.loads(sample["json"])["id"]]
        heard, rate = soundfile.read(io.BytesIO(sample["flac"]))
        assert rate == RATE
        assert np.array_equal(heard, samples)
        assert sample["txt"].decode() == text
