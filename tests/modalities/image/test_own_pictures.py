"""The user's own pictures: what becomes of a folder with a manifest, good files and bad ones."""

from __future__ import annotations

import io
import json
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageDraw

from tercet.errors import StoreError
from tercet.modality import NoAnswers, Planning, Resources
from tercet.pipeline.run import run_recipe
from tercet.recipe import load_recipe
from tercet.records import Failure, Made
from tercet.sources import read_examples
from tercet.store.shards import read_records
from tercet_image.examples import Examples
from tercet_image.payload import payload
from tercet_image.photo import BadPicture, read_picture
from tercet_image.plan import plan
from tercet_image.recipe import ImageRecipe
from tercet_image.show import show

ORIENTATION = 0x0112  # EXIF tag


def drawing(mode="RGB", size=(48, 32), seed=0):
    """Draw a picture that no gate calls blank: a red disc in the top left corner, and a mark that differs by seed."""
    image = Image.new("RGB", size, "white")
    canvas = ImageDraw.Draw(image)
    canvas.ellipse((2, 2, 14, 14), fill="red")
    canvas.rectangle((4 + 5 * seed, 20, 8 + 5 * seed, 30), fill=(40 * seed % 255, 90, 200))
    return image.convert(mode)


def encoded(image, kind="PNG", **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def decoded(data):
    picture = Image.open(io.BytesIO(data))
    assert (picture.format, picture.mode) == ("PNG", "RGB")
    return picture


def bomb(wide=30_000, high=30_000):
    """A PNG whose header promises 900 million pixels."""
    header = struct.pack(">IIBBBBB", wide, high, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(b"\0" * 1000)), (b"IEND", b"")]
    parts = [struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.fixture
def folder(tmp_path):
    place = tmp_path / "photos"
    place.mkdir()
    return place


def write(folder, rows, files):
    for name, data in files.items():
        (folder / name).write_bytes(data)
    (folder / "manifest.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def planned(folder, **section):
    planning = Planning(3, "en", examples=read_examples(folder), real_fraction=0.2, root=str(folder.parent))
    return plan(ImageRecipe.model_validate(section), planning)


def take(folder, row, data=None, **section):
    """Make the one example of a folder."""
    write(folder, [{"file": "a.png", **row}], {"a.png": encoded(drawing()) if data is None else data})
    generator = Examples(ImageRecipe.model_validate(section), Resources(3, "en", 1, NoAnswers(), str(folder.parent)))
    return next(generator([planned(folder, **section).item(0)]))


def test_a_row_becomes_a_record_with_its_other_fields_in_the_lineage(folder):
    asked = [{"question": "What is red?", "answer": "the disc"}]
    made = take(folder, {"caption": " A red\n disc. ", "questions": asked, "licence": "CC0-1.0", "year": 2024})
    assert isinstance(made, Made)
    assert made.payload["caption"] == "A red disc."
    assert made.payload["questions"] == [{**asked[0], "attribute": ""}]
    assert json.loads(made.payload["scene"]) == {}
    assert decoded(made.payload["image"]).tobytes() == drawing().tobytes()
    assert made.parameters["file"] == "photos/a.png"
    assert made.parameters["fields"] == {"licence": "CC0-1.0", "year": 2024}
    assert len(made.parameters["parents"]) == 1
    assert (made.model.reference, made.model.output_terms) == ("user:examples", "free")
    assert set(made.payload) == set(payload.columns.names)


def test_a_table_may_hold_questions_as_json(folder):
    (folder / "a.png").write_bytes(encoded(drawing()))
    (folder / "manifest.csv").write_text(
        'file,caption,questions\na.png,A disc,"[{""question"": ""Q?"", ""answer"": ""A""}]"\n'
    )
    generator = Examples(ImageRecipe(), Resources(3, "en", 1, NoAnswers(), str(folder.parent)))
    made = next(generator([planned(folder).item(0)]))
    assert isinstance(made, Made)
    assert made.payload["questions"] == [{"question": "Q?", "answer": "A", "attribute": ""}]


@pytest.mark.parametrize(
    ("row", "named"),
    [
        ({}, "caption: None; write what the picture shows"),
        ({"caption": "  "}, "caption: '  '"),
        ({"caption": 7}, "caption: 7"),
        ({"caption": "x", "questions": "what?"}, "questions: 'what?'; write a JSON list"),
        ({"caption": "x", "questions": {"question": "Q"}}, "a list of {question, answer} is needed"),
        ({"caption": "x", "questions": [{"question": "Q"}]}, "questions[0]"),
        ({"caption": "x", "questions": [{"question": "Q", "answer": 3}]}, "must be text"),
    ],
)
def test_a_row_that_lacks_something_fails_by_its_file_and_says_what_to_write(folder, row, named):
    failure = take(folder, row)
    assert isinstance(failure, Failure)
    assert (failure.error, failure.retryable) == ("BadExample", False)
    assert failure.message.startswith("photos/a.png: ")
    assert named in failure.message


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "the file is empty"),
        (b"not a picture at all", "not a picture that can be read"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not a picture that can be read"),
        (encoded(drawing())[:-60], "broken or cut off"),
        (encoded(drawing(), "JPEG")[:300], "broken or cut off"),
        (encoded(drawing(), "GIF", save_all=True, append_images=[drawing(seed=2)]), "more than one frame"),
        (encoded(drawing(), "TIFF", save_all=True, append_images=[drawing(seed=2)]), "more than one frame"),
        (encoded(drawing(), "PNG", save_all=True, append_images=[drawing(seed=2)]), "more than one frame"),
        (encoded(Image.new("I;16", (8, 8), 60_000)), "more than 8 bits"),
        (encoded(drawing(size=(2049, 20))), "2049 x 20 pixels, above 2048 a side"),
        (bomb(), "far too many pixels"),
        (bomb(10_000, 10_000), "far too many pixels"),  # Pillow would only warn
    ],
    ids=["empty", "text", "eps", "cut-png", "cut-jpeg", "gif", "tiff", "apng", "16-bit", "wide", "bomb", "half-bomb"],
)
def test_a_file_that_is_no_plain_picture_fails_by_name_with_the_fix(folder, data, said):
    failure = take(folder, {"caption": "x"}, data)
    assert isinstance(failure, Failure)
    assert failure.error == "BadExample"
    assert failure.message.startswith("photos/a.png: ")
    assert said in failure.message
    assert not failure.retryable


def test_the_largest_side_is_the_recipes_to_say(folder):
    data = encoded(drawing(size=(2049, 20)))
    assert isinstance(take(folder, {"caption": "x"}, data, max_example_side=2049), Made)
    failure = take(folder, {"caption": "x"}, data, max_example_side=64)
    assert isinstance(failure, Failure)
    assert "raise modalities.image.max_example_side" in failure.message


def test_a_picture_that_lies_on_its_side_is_set_upright_and_keeps_no_metadata():
    exif = Image.Exif()
    exif[ORIENTATION] = 6  # turn a quarter clockwise to view
    exif[0x010E] = "taken at home"
    data = encoded(drawing(), "JPEG", quality=95, exif=exif.tobytes(), comment=b"secret", icc_profile=b"profile")
    upright = decoded(read_picture(data, 2048))
    assert upright.size == (32, 48)
    found = np.argwhere(np.abs(np.asarray(upright, int) - (255, 0, 0)).max(axis=2) < 80).mean(0)
    assert found == pytest.approx((8, 23), abs=2)  # the top left corner went to the top right
    assert not upright.getexif()
    assert not upright.info
    assert b"home" not in read_picture(data, 2048)


def test_what_shines_through_is_laid_on_white():
    image = Image.new("RGBA", (20, 20), (0, 0, 0, 0))
    ImageDraw.Draw(image).rectangle((0, 0, 9, 19), fill=(0, 0, 255, 255))
    picture = decoded(read_picture(encoded(image), 2048))
    assert (picture.getpixel((2, 5)), picture.getpixel((15, 5))) == ((0, 0, 255), (255, 255, 255))


@pytest.mark.parametrize(
    "data",
    [encoded(drawing("CMYK"), "JPEG"), encoded(drawing("L")), encoded(drawing("P"), "GIF"),
     encoded(drawing("1"), "TIFF"), encoded(drawing("LA")), encoded(drawing(), "BMP"),
     encoded(drawing(), "WEBP", lossless=True)],
    ids=["cmyk", "grey", "gif", "bilevel", "grey-alpha", "bmp", "webp"],
)  # fmt: skip
def test_every_common_kind_of_picture_becomes_rgb(data):
    assert decoded(read_picture(data, 2048)).size == (48, 32)


def test_any_cut_and_any_flipped_byte_is_a_picture_or_a_reason():
    whole = encoded(drawing(), "PNG")
    spoilt = [whole[:cut] for cut in range(0, len(whole), 7)]
    spoilt += [whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :] for at in range(0, len(whole), 5)]
    told = 0
    for data in spoilt:
        try:
            read_picture(data, 2048)
        except BadPicture:
            told += 1
    assert told > len(spoilt) / 2


def test_real_pictures_are_at_most_their_share_of_the_train_split(folder):
    rows = [{"file": f"{at}.png", "caption": f"Picture {at}"} for at in range(9)]
    write(folder, rows, {row["file"]: encoded(drawing(seed=at)) for at, row in enumerate(rows)})
    assert len(planned(folder)) == 9  # nothing synthetic to be a share of
    whole = planned(folder, pictures=24)
    items = [whole.item(index) for index in range(len(whole))]
    real = [item for item in items if item.generator == "examples"]
    num_train = sum(item.split == "train" for item in items)
    assert whole.num_examples == len(real) > 0
    assert len(real) / num_train <= 0.2 + 0.5 / num_train  # rounded to a whole picture
    assert {item.split for item in real} == {"train"}
    assert len({item.key for item in items}) == len(items)


def test_the_train_split_is_counted_without_planning_every_item():
    scenes, _ = plan(ImageRecipe(pictures=1), Planning(3, "en")).parts[0]
    splits = [scenes.item(index, index).split for index in range(200)]  # two and a half rounds of the 80 pairs
    for count in (0, 1, 79, 80, 81, 200):
        assert scenes.num_train(count) == splits[:count].count("train")


def test_a_repeated_row_is_planned_once(folder):
    row = {"file": "a.png", "caption": "A disc"}
    write(folder, [row, row, {**row, "caption": "A red disc"}], {"a.png": encoded(drawing())})
    assert len(planned(folder)) == 2


def test_an_item_keeps_its_key_when_the_recipe_moves_with_its_folder(folder, tmp_path_factory):
    write(folder, [{"file": "a.png", "caption": "x"}], {"a.png": encoded(drawing())})
    key = planned(folder).item(0).key
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "photos"
    folder.rename(elsewhere)
    assert planned(elsewhere).item(0).key == key


def test_a_file_that_changed_after_planning_is_not_taken_for_the_planned_one(folder):
    write(folder, [{"file": "a.png", "caption": "x"}], {"a.png": encoded(drawing())})
    item = planned(folder).item(0)
    (folder / "a.png").write_bytes(encoded(drawing(seed=3)))
    (failure,) = Examples(ImageRecipe(), Resources(3, "en", 1, NoAnswers(), str(folder.parent)))([item])
    assert isinstance(failure, Failure)
    assert "changed after the run was planned" in failure.message


RECIPE = """\
version: 1
name: shop
sources:
  examples: [{modality: image, path: photos, real_fraction: 0.3}]
modalities:
  image: {pictures: 12, captions: [short]}
"""


def test_a_folder_runs_beside_rendered_pictures_and_a_bad_file_costs_only_itself(folder, tmp_path):
    rows = [{"file": f"{at}.png", "caption": f"Shelf {at}"} for at in range(3)]
    files = {row["file"]: encoded(drawing(seed=at)) for at, row in enumerate(rows)}
    write(folder, rows, {**files, "1.png": files["1.png"][:90]})
    (tmp_path / "shop.yaml").write_text(RECIPE)
    result = run_recipe(load_recipe(tmp_path / "shop.yaml"), workers=0)
    counts = result.summary["modalities"]["image"]
    assert (counts["made"], counts["failed"]) == (14, 1)
    assert [(error["error"], error["count"]) for error in counts["errors"]] == [("BadExample", 1)]
    real = [one for one in read_records(result.run_dir, "image") if one.lineage["generator"] == "examples"]
    assert sorted(one.payload["caption"] for one in real) == ["Shelf 0", "Shelf 2"]
    assert all(one.lineage["parents"][0].startswith("example:") for one in real)
    assert show(real[0].payload).text.startswith("Shelf")


def test_a_folder_of_bad_files_fails_the_run_by_its_cell(folder, tmp_path):
    names = [f"{at}.png" for at in range(4)]
    write(folder, [{"file": name, "caption": "x"} for name in names], dict.fromkeys(names, b"nonsense"))
    (tmp_path / "shop.yaml").write_text(RECIPE)
    with pytest.raises(StoreError, match="examples"):
        run_recipe(load_recipe(tmp_path / "shop.yaml"), workers=0)


def test_an_escape_sequence_in_a_caption_reaches_no_terminal():
    shown = show({"image": b"", "caption": "a\x1b[2Jb", "questions": [], "scene": "{}"})
    assert shown.text == "a [2Jb"
