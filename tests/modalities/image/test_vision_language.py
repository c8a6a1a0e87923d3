"""The task `vision-language` on a LLaVA of random weights: real code, answers that mean nothing."""

from __future__ import annotations

import dataclasses
import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tercet.compat import prepare_torchaudio
from tercet.errors import CorruptError, ModelError, NothingSurvived, SourceError, UsageError
from tercet.evaluate.run import evaluate_recipe
from tercet.models import ResolvedModel
from tercet.pipeline.run import run_recipe
from tercet.recipe import Adapter, load_recipe
from tercet.store.shards import read_records
from tercet.train.adapters import attach, trainable
from tercet.train.run import train_recipe
from tercet.train.task import ChecksBase, Example, Validates
from tercet_image import vl_suites
from tercet_image.answers import ANSWER_ERRORS, FALSE_NAMES, KNOWN_ERRORS, count_answer, mentions, normal
from tercet_image.general_scenes import MEASURED, REPLAYED, general_payloads, new_names
from tercet_image.plan import Scenes
from tercet_image.vision_language import LANGUAGE, VisionLanguage
from tercet_image.vl_data import DESCRIBE, described, prepare
from tercet_image.vl_reader import Reader, open_picture
from tercet_image.vl_suites import NUM_GENERAL, blinded

SIZE, PATCH = 64, 16
CONTEXT = 160  # 16 tokens of the picture, a token a letter
TEMPLATE = """\
{{- bos_token }}
{%- for message in messages %}
  {%- if message['role'] == 'assistant' %}
    {{- ' ASSISTANT: ' + message['content'][0]['text'] + eos_token + '\n' }}
  {%- else %}
    {{- 'USER: ' }}
    {%- for part in message['content'] if part['type'] == 'image' %}{{- '<image>' }}{%- endfor %}
    {%- for part in message['content'] if part['type'] == 'text' %}{{- part['text'] }}{%- endfor %}
  {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- ' ASSISTANT:' }}{%- endif %}
"""
RECIPE = """
version: 1
name: brand
seed: 3
modalities:
  image:
    pictures: 40
    size: 64
    test_fraction: 0.2
    captions: [short]
    scene:
      shapes: [circle, square, star]
      colours: {teal: '#008080', mustard: '#c9a227', red: '#e5383b'}
      label_share: 0
train:
  task: vision-language
  base: path:./base
  steps: 3
  micro_batch: 4
  adapter: {rank: 2, dropout: 0}
"""


def build(folder: Path) -> None:
    """Save a tiny LLaVA as a user would."""
    prepare_torchaudio()
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import (
        LlamaConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
        LlavaProcessor,
        PreTrainedTokenizerFast,
        SiglipVisionConfig,
    )
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    words = ["<pad>", "<s>", "</s>", "<image>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    letters = Tokenizer(models.BPE(vocab={word: at for at, word in enumerate(words)}, merges=[]))
    letters.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    letters.decoder = decoders.ByteLevel()
    letters.add_special_tokens(words[:4])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=letters, pad_token="<pad>", bos_token="<s>", eos_token="</s>",
        extra_special_tokens={"image_token": "<image>"}, clean_up_tokenization_spaces=False,
    )  # fmt: skip
    pictures = CLIPImageProcessorPil(
        size={"shortest_edge": SIZE}, crop_size={"height": SIZE, "width": SIZE},
        image_mean=[0.5] * 3, image_std=[0.5] * 3,
    )  # fmt: skip
    processor = LlavaProcessor(
        pictures, tokenizer, patch_size=PATCH, vision_feature_select_strategy="full", chat_template=TEMPLATE
    )
    ends = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    config = LlavaConfig(
        vision_config=SiglipVisionConfig(
            hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=SIZE,
            patch_size=PATCH, vision_use_head=False,
        ),
        text_config=LlamaConfig(
            vocab_size=len(words), hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
            max_position_embeddings=CONTEXT, tie_word_embeddings=True, **ends,
        ),
        image_token_index=3, image_seq_length=(SIZE // PATCH) ** 2, vision_feature_layer=-1,
        vision_feature_select_strategy="full", tie_word_embeddings=True, **ends,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = LlavaForConditionalGeneration(config)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A recipe's folder with its base and its finished run."""
    folder = tmp_path_factory.mktemp("brand")
    build(folder / "base")
    (folder / "recipe.yaml").write_text(RECIPE)
    run_recipe(load_recipe(folder / "recipe.yaml"))
    return folder


@pytest.fixture
def recipe(root):
    return load_recipe(root / "recipe.yaml")


@pytest.fixture
def run_dir(root):
    return root / "runs" / "brand"


@pytest.fixture
def task(recipe):
    return VisionLanguage(recipe)


@pytest.fixture
def model(task, root):
    return task.load_base(root / "base")


@pytest.fixture
def data(task, model, run_dir):
    return task.prepare(model, run_dir, 3, lambda *_: None)


def quietly(*_: Any) -> None:
    pass


def test_pixels_reach_the_loss(task, model, data):
    batch = data.collate([0, 1, 2, 3], [])
    loss = float(task.loss(model, batch))
    pixels = batch["inputs"]["pixel_values"]
    batch["inputs"]["pixel_values"] = pixels.flip(0)  # each question about another one's picture
    assert abs(float(task.loss(model, batch)) - loss) > 1e-4
    batch["inputs"]["pixel_values"] = pixels
    assert float(task.loss(model, batch)) == loss


def test_the_loss_is_that_of_transformers_over_answer_and_end_alone(task, model, data):
    batch = data.collate([0, 5, 7], [1])
    rows = [data.own[at] for at in (0, 5, 7)] + [data.general[1]]
    labels = batch["inputs"]["input_ids"].clone().fill_(-100)
    for label, row in zip(labels, rows, strict=True):
        label[row.size - len(row.answer) : row.size] = label.new_tensor(row.answer)
        assert row.answer[-1] == 2 and 2 not in row.answer[:-1]
    expected = model(**batch["inputs"], labels=labels).loss
    assert float(task.loss(model, batch)) == pytest.approx(float(expected), rel=1e-5)


def test_a_row_stands_alone_whatever_is_beside_it(task, model, data):
    short, long = sorted(range(len(data.rows)), key=lambda at: data.rows[at].size)[:: len(data.rows) - 1]
    assert data.rows[short].size < data.rows[long].size
    losses = [float(task.loss(model, data.collate([at], []))) for at in (short, long)]
    both = float(task.loss(model, data.collate([short, long], [])))
    units = [data.rows[at].units for at in (short, long)]
    assert both == pytest.approx(sum(x * n for x, n in zip(losses, units, strict=True)) / sum(units), rel=1e-4)
    assert data.collate([short], [])["inputs"]["input_ids"].shape[1] == data.rows[short].size


def test_what_is_trained_is_what_is_decoded(task, model, data, root):
    reader = data.reader
    asked = data.own[0]
    picture = open_picture(asked.picture, "")
    prompt = reader.ask([picture], [asked.question])["input_ids"][0].tolist()
    whole = data.collate([0], [])["inputs"]["input_ids"][0].tolist()
    assert whole == [*prompt, *asked.answer]
    assert prompt.count(3) == 16


def test_the_adapter_leaves_the_vision_tower_alone(task, model):
    names = list(trainable(attach(model, Adapter(rank=2), task.defaults.targets)))
    assert not [name for name in names if "vision" in name]
    for part in ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj", "projector.linear_1"):
        assert any(part in name for name in names), part


def test_fused_layers_give_the_loss_of_peft(task, root, run_dir):
    import torch

    losses = []
    for kernels in ("peft", "fused"):
        model = task.load_base(root / "base")
        torch.manual_seed(0)
        wrapped = attach(model, Adapter(rank=2, dropout=0), task.defaults.targets, kernels)
        with torch.no_grad():
            for value in trainable(wrapped).values():
                value.normal_(std=0.1, generator=torch.Generator().manual_seed(1))
        batch = task.prepare(wrapped, run_dir, 3, quietly).collate([0, 1], [0])
        loss = task.loss(wrapped, batch)
        loss.backward()
        losses.append(
            [
                loss.item(),
                *(value.grad.norm().item() for value in trainable(wrapped).values() if value.grad is not None),
            ]
        )
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


def test_a_picture_without_pixel_values_is_refused(data):
    class Blind:
        def __init__(self, real: Any) -> None:
            self.real, self.tokenizer = real, real.tokenizer

        def __call__(self, **given: Any) -> Any:
            return {name: value for name, value in self.real(**given).items() if name != "pixel_values"}

        def __getattr__(self, name: str) -> Any:
            return getattr(self.real, name)

    data.reader.processor = Blind(data.reader.processor)
    with pytest.raises(ModelError, match="base: its processor gives no pixel_values"):
        data.collate([0, 1], [])


def test_image_tokens_must_be_as_many_as_the_models_features(task, model, root):
    reader = Reader(model, root / "base")
    reader.processor.patch_size = 8  # as if it were another model's processor
    with pytest.raises(ModelError, match="gives a picture 64 image tokens, and the model has 16 features"):
        reader.size(Image.new("RGB", (64, 64)), "What?")


def test_a_record_without_a_picture_is_named(data, recipe, run_dir):
    records = list(read_records(run_dir, "image", "train"))
    first = records[0]
    for broken, said in ((b"", "holds no picture"), (b"\x89PNG\r\n nothing", "can't be decoded")):
        spoilt = dataclasses.replace(first, payload={**first.payload, "image": broken})
        with pytest.raises(CorruptError, match=f"record {first.id}: .*{said}"):
            prepare(data.reader, [spoilt], [], recipe.sections.train, 3, quietly, describe=False)


def test_without_records_nothing_is_trained(data, recipe):
    with pytest.raises(NothingSurvived, match="no accepted picture to train on"):
        prepare(data.reader, [], [], recipe.sections.train, 3, quietly, describe=False)


def test_a_question_over_the_context_is_left_out_and_counted(data, recipe, run_dir):
    first, second = list(read_records(run_dir, "image", "train"))[:2]
    asked = [{"question": "Why? " * 40, "answer": "no", "attribute": ""}]
    long = dataclasses.replace(first, payload={**first.payload, "questions": asked})
    found = prepare(data.reader, [long, second], [], recipe.sections.train, 3, quietly, describe=False)
    assert (found.left_out, {one.record for one in found.own}) == (1, {second.id})
    with pytest.raises(NothingSurvived, match="none of 1 questions fits the base's context of 160 tokens"):
        prepare(data.reader, [long], [], recipe.sections.train, 3, quietly, describe=False)


def test_a_picture_without_questions_gives_its_caption():
    payload = {"image": b"x", "caption": "A star.", "questions": []}
    assert described("1", payload, describe=False).turns == ((DESCRIBE, "A star."),)
    asked = {**payload, "questions": [{"question": "What?", "answer": "the star", "attribute": "shape"}]}
    assert described("1", asked, describe=False).turns == (("What?", "the star"),)
    assert described("1", asked, describe=True).turns == (("What?", "the star"), (DESCRIBE, "A star."))


def test_a_question_is_shown_with_its_picture(task):
    shown = task.show_example(Example("1/0", "1", "<two>", {"picture": b"png", "question": "How many?"}))
    assert shown.text == "(1 picture) How many? <two>"
    assert '<img src="data:image/png;base64,cG5n" alt="How many? &lt;two&gt;">' in shown.html
    assert task.show_answer("three").html == "<figure><figcaption>three</figcaption></figure>"


def test_an_answer_is_right_by_its_words():
    assert normal("The Star!") == "star"
    assert count_answer("What is teal?", "the star", "Star.", ["teal"]) == {ANSWER_ERRORS: (0.0, 1.0)}
    counted = count_answer("What colour is the star?", "red", "light teal", ["teal"])
    assert counted == {ANSWER_ERRORS: (1.0, 1.0), KNOWN_ERRORS: (1.0, 1.0), FALSE_NAMES: (1.0, 1.0)}
    assert count_answer("How many?", "two", "two", ["teal"])[FALSE_NAMES] == (0.0, 1.0)
    assert not mentions("a tealish star", ["teal"])


def test_suites_hold_unseen_pairs_the_same_questions_blind_and_the_default_palette(task, run_dir, recipe):
    suites = {suite.role: suite for suite in task.suites(run_dir)}
    assert list(suites) == ["primary", "other", "general"]
    sighted, blind = suites["primary"].examples, suites["other"].examples
    assert [one.content["question"] for one in sighted] == [one.content["question"] for one in blind]
    assert all(open_picture(one.content["picture"], "").getextrema() == ((0, 0),) * 3 for one in blind)
    pairs = {f"{colour} {shape}" for colour, shape in Scenes(task.section, (), recipe.sections.seed).held_out}
    assert {one.source for one in sighted} == {one.source for one in blind} == pairs
    assert len({one.source for one in suites["general"].examples}) == NUM_GENERAL
    assert new_names(task.section) == ["teal", "mustard"]
    assert not any(
        mentions(f"{one.content['question']} {one.reference}", task._names) for one in suites["general"].examples
    )
    measured = {payload["image"] for _, payload in general_payloads(task.section, MEASURED, 60)}
    assert not measured & {payload["image"] for _, payload in general_payloads(task.section, REPLAYED, 60)}


def test_the_users_own_pictures_bound_forgetting_too(recipe, run_dir, tmp_path):
    file = io.BytesIO()
    Image.new("RGB", (20, 30), "red").save(file, "PNG")
    (tmp_path / "shelf.png").write_bytes(file.getvalue())
    rows = [{"file": "shelf.png", "questions": [{"question": "What colour?", "answer": "red"}]}]

    def suites():
        (tmp_path / "manifest.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        return VisionLanguage(recipe.replaced(evaluate={"general": str(tmp_path)})).suites(run_dir)

    own = suites()[-1]
    assert (own.name, own.role, len(own.examples)) == (f"your {tmp_path.name}", "general", 1)
    assert (own.examples[0].content["question"], own.examples[0].reference) == ("What colour?", "red")
    assert open_picture(own.examples[0].content["picture"], "").size == (20, 30)
    rows[0]["questions"] = []
    with pytest.raises(SourceError, match=r"evaluate.general: .*shelf.png: has no questions"):
        suites()


def test_the_blind_picture_is_as_large_as_the_real_one(task, run_dir):
    example = task.suites(run_dir)[0].examples[0]
    assert open_picture(blinded(example).content["picture"], "").size == (64, 64)


def test_an_answer_does_not_depend_on_how_many_are_asked(task, model, run_dir):
    examples = task.suites(run_dir)[0].examples[:3]
    told: list[tuple[int, int]] = []
    together = list(task.answer(model, examples, lambda *at: told.append(at)))
    assert together == [said for one in examples for said in task.answer(model, [one], quietly)]
    assert told == [(3, 3)]


def test_a_user_asks_about_a_file(task, tmp_path, run_dir):
    file = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(file, "PNG")
    (tmp_path / "a b.png").write_bytes(file.getvalue())
    example = task.read_input(f"{tmp_path / 'a b.png'}: What colour is it?")
    assert example.content["question"] == "What colour is it?"
    assert open_picture(example.content["picture"], "").getpixel((0, 0)) == (255, 0, 0)
    assert task.read_input(str(tmp_path / "a b.png")).content["question"] == DESCRIBE
    with pytest.raises(SourceError, match="no picture that can be read; write: picture.png: a question"):
        task.read_input("nowhere.png: What?")


def test_a_users_picture_is_set_upright_laid_on_white_and_held_against_the_largest_side(task, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    Image.new("RGB", (16, 8)).save(tmp_path / "turned.jpg", exif=exif)
    Image.new("RGBA", (8, 8)).save(tmp_path / "clear.png")
    Image.new("RGB", (task.section.max_example_side + 1, 8)).save(tmp_path / "wide.png")
    (tmp_path / "notes.txt").write_text("no picture")
    assert open_picture(task.read_input(f"{tmp_path}/turned.jpg").content["picture"], "").size == (8, 16)
    clear = open_picture(task.read_input(f"{tmp_path}/clear.png").content["picture"], "")
    assert clear.getpixel((0, 0)) == (255, 255, 255)
    with pytest.raises(SourceError, match=r"wide\.png: 2049 x 8 pixels, above 2048 a side"):
        task.read_input(f"{tmp_path}/wide.png: What?")
    with pytest.raises(SourceError, match=r"notes\.txt: not a picture that can be read; save it as one of PNG"):
        task.read_input(f"{tmp_path}/notes.txt")


@pytest.mark.parametrize(
    ("name", "is_adapted"),
    [
        ("model.language_model.layers.0.self_attn.q_proj", True),
        ("model.language_model.layers.0.mlp.gate_proj", True),
        ("model.multi_modal_projector.linear_1", True),
        ("model.visual.blocks.0.mlp.gate_proj", False),
        ("model.vision_tower.vision_model.encoder.layers.0.self_attn.q_proj", False),
        ("model.vision_model.encoder.layers.0.self_attn.q_proj", False),
    ],
)
def test_no_kind_of_vision_tower_is_adapted(name, is_adapted):
    assert bool(re.fullmatch(LANGUAGE, name)) is is_adapted


def test_what_is_watched_is_not_trained_on(recipe, model, run_dir, root):
    watching = recipe.replaced(train={**recipe.data["train"], "early_stop": {"share": 0.3}})
    task = VisionLanguage(watching)
    assert isinstance(task, Validates)
    task.load_base(root / "base")
    watched = {one.source for one in task.validation(run_dir)}
    trained = {one.record for one in task.prepare(model, run_dir, 3, quietly).own}
    assert watched and trained and not watched & trained


def string_alone(processor: Any) -> None:
    processor.chat_template = "{% for one in messages %}{{ one['content'] + '.' }}{% endfor %}"


def no_image(processor: Any) -> None:
    processor.chat_template = "{% for one in messages %}{{ one['content'] }}{% endfor %}"


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda processor: setattr(processor.tokenizer, "pad_token", None), "base: no pad token; write pad_token into"),
        (lambda processor: setattr(processor.tokenizer, "eos_token", None), "base: no end token; write eos_token into"),
        (string_alone, "base: no processor with a chat template: "),
        (no_image, "base: it can't be asked about a picture: .* 0 <image> tokens"),
    ],
    ids=["pad", "end", "string", "no image"],
)
def test_an_odd_processor_is_refused_with_its_base(task, root, monkeypatch, spoil, said):
    from transformers import AutoProcessor

    processor = AutoProcessor.from_pretrained(root / "base")
    spoil(processor)
    monkeypatch.setattr(AutoProcessor, "from_pretrained", lambda _: processor)
    with pytest.raises(ModelError, match=said):
        task.load_base(root / "base")


def test_a_configuration_without_an_image_token_is_refused(root):
    class Spoilt:
        config = type("Config", (), {"image_token_id": None})()

    with pytest.raises(ModelError, match="base: no image token; write image_token_id into config.json"):
        Reader(Spoilt(), root / "base")


def test_what_no_question_could_judge_is_not_trained(recipe, run_dir, root, tmp_path, monkeypatch):
    def check(place, **more):
        image = {**recipe.data["modalities"]["image"], **more}
        task: Any = VisionLanguage(recipe.replaced(modalities={"image": image}))
        assert isinstance(task, ChecksBase)
        task.check_base(ResolvedModel("path:base", root / "base", "", "", "free", ""), place)

    check(run_dir)
    with pytest.raises(UsageError, match=r"modalities\.image\.test_fraction: 0 gives no held-out picture to judge by"):
        check(tmp_path, test_fraction=0)
    with pytest.raises(UsageError, match=r"modalities\.image\.pictures: 40 gives no held-out picture to judge by"):
        check(tmp_path)
    first = next(iter(read_records(run_dir, "image", "train")))
    unasked = dataclasses.replace(first, payload={**first.payload, "questions": []})
    monkeypatch.setattr(vl_suites, "held_out_records", lambda *_: [unasked])
    with pytest.raises(
        UsageError, match=r"image\.questions_per_picture: 0 leaves no question about a held-out picture"
    ):
        check(run_dir, questions_per_picture=0)
    with pytest.raises(UsageError, match=r"image\.diffusion\.keep_questions: false leaves no question"):
        check(run_dir)


def test_another_kind_of_model_is_refused(task, tmp_path, tiny_pipeline):
    with pytest.raises(ModelError, match="can't be loaded as a model of pictures and text"):
        task.load_base(tiny_pipeline / "text_encoder")


def test_a_recipe_without_pictures_cannot_train_on_them(tmp_path):
    (tmp_path / "recipe.yaml").write_text("version: 1\nname: x\ntrain: {task: vision-language}\n")
    with pytest.raises(UsageError, match="fill modalities.image"):
        VisionLanguage(load_recipe(tmp_path / "recipe.yaml"))


def test_a_recipe_is_trained_and_judged_and_exported(recipe, run_dir, root, tmp_path):
    from transformers import AutoModelForImageTextToText, AutoProcessor

    quick = recipe.replaced(evaluate={"limit": 8})
    trained = train_recipe(quick)
    assert trained.steps == 3
    found = evaluate_recipe(quick)
    assert found["suites"]["held_out_combinations"]["leading"] == ANSWER_ERRORS
    assert set(found["suites"]) == {"held_out_combinations", "blind", "general"}
    VisionLanguage(quick).export(root / "base", trained.adapter, tmp_path / "out")
    assert AutoModelForImageTextToText.from_pretrained(tmp_path / "out").config.model_type == "llava"
    assert AutoProcessor.from_pretrained(tmp_path / "out").chat_template
