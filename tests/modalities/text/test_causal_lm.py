"""The task `causal-lm`: packed rows are the dialogs they hold, answers are decoded turns, bad input is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tercet.compat import prepare_torchaudio
from tercet.errors import ModelError, NothingSurvived, SourceError, UsageError
from tercet.modality import Planning
from tercet.models import resolve
from tercet.models.reference import ResolvedModel
from tercet.recipe import Adapter, Train, load_recipe
from tercet.records import Record
from tercet.train.adapters import attach, save
from tercet.train.task import ChecksBase, Example, Validates
from tercet_text import causal_lm, lm_data
from tercet_text.calls import Call
from tercet_text.causal_lm import CausalLm, context_of
from tercet_text.causal_lm_chat import ChatFormat, write_call
from tercet_text.causal_lm_decoding import Decoder, Written
from tercet_text.causal_lm_packing import Layout, batch
from tercet_text.causal_lm_probes import check_model
from tercet_text.dialog import message
from tercet_text.environment import Domain, Environment, Tool
from tercet_text.general import judging
from tercet_text.lm_metrics import write_turn
from tercet_text.plan import plan

TOOL = Tool(name="price", description="price of packs", parameters={"packs": Domain(integer=(1, 9))},
            returns={"total": Domain(price=(1.0, 9.0))})  # fmt: skip
ENVIRONMENT = Environment([TOOL], 1)
TOOLS = [TOOL.function_schema()]
RECIPES = Path(__file__).parents[3] / "recipes"
RECIPE = """
version: 1
name: tiny
sources: {terms: terms.txt}
modalities:
  text: {dialogs: 3}
train: {task: causal-lm}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Llama of two layers with SmolLM2's tokenizer, as a user's base would lie there."""
    prepare_torchaudio()
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    tokenizer = AutoTokenizer.from_pretrained(resolve("auto", "chat").path)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=512, eos_token_id=tokenizer.eos_token_id, bos_token_id=1,
        initializer_range=0.3, tie_word_embeddings=True,
    )  # fmt: skip
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("tiny")
    LlamaForCausalLM(config).save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


@pytest.fixture
def task(tmp_path: Path) -> CausalLm:
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    (tmp_path / "terms.txt").write_text("metformin\nwarfarin\n")
    return CausalLm(load_recipe(tmp_path / "recipe.yaml"))


MARKED = (  # Llama 2's spaces around an answer, in a template that marks what the assistant writes
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' %}{% generation %}{{ m.content }} "
    "<|im_end|>\n{% endgeneration %}{% else %}{{ m.content }}<|im_end|>\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def record(name: str, *said: str, system: str = "You help.", tools: str = "[]") -> Record:
    roles = ("user", "assistant")
    messages = [message("system", system), *(message(roles[at % 2], text) for at, text in enumerate(said))]
    payload = {
        "messages": messages, "citations": [], "tools": tools, "intent": "i", "persona": "p", "mood": "m",
        "edge_case": "",
    }  # fmt: skip
    return Record(name, "i", "text", "train", payload, {"parameters": {}}, ())


DIALOGS = [
    record("one", "Hi there.", "Hello! How can I help?", "Two packs?", "They cost 4.50 pounds."),
    record("two", "What is open?", "Mill Street, until noon."),
    record("three", "Hi.", "Yes?", system="Another beginning, a longer one."),
    record("four", "Is it far?", "No, not at all; it is around the corner."),
]


def prepared(model: Any, form: ChatFormat, records: list[Record], context: int = 512) -> lm_data.PackedData:
    train = Train(task="causal-lm")
    return lm_data.prepare(form, context, model.device, records, train, 1, lambda *_: None)


def plain_model(folder: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder)


def logits_apart(folder: Path, data: lm_data.PackedData) -> dict[tuple[str, int], torch.Tensor]:
    """Compute each label's logits with each dialog alone, by transformers' own forward and attention."""
    model = plain_model(folder)
    found: dict[tuple[str, int], torch.Tensor] = {}
    for dialog in data.dialogs:
        logits = model(torch.tensor([dialog.tokens.ids])).logits[0]
        found |= {(dialog.record, place): logits[place - 1] for place in dialog.tokens.counted}
    return found


def logits_packed(model: Any, data: lm_data.PackedData, **changed: Any) -> dict[tuple[str, int], torch.Tensor]:
    """Compute each label's logits in its packed row."""
    found: dict[tuple[str, int], torch.Tensor] = {}
    for pack in data.packs:
        tensors = batch([Layout(pack, data.dialogs)], model.device) | changed
        hidden = model.base_model(
            tensors["ids_BT"], attention_mask=tensors["mask_B1TT"], position_ids=tensors["positions_BT"],
            use_cache=False, segments=tensors["segments"],
        ).last_hidden_state  # fmt: skip
        logits = model.lm_head(hidden[0][tensors["sources_N"]])
        names = [(data.dialogs[at].record, place) for at in pack.dialogs for place in data.dialogs[at].tokens.counted]
        found |= dict(zip(names, logits, strict=True))
    return found


def farthest(one: dict[Any, torch.Tensor], other: dict[Any, torch.Tensor]) -> float:
    assert one.keys() == other.keys()
    return max(float((one[key] - other[key]).abs().max()) for key in one)


def test_a_packed_row_gives_what_each_dialog_gives_alone(task: CausalLm, folder: Path) -> None:
    model: Any = task.load_base(folder)
    data = prepared(model, task._form, DIALOGS)
    assert len(data.rows) == 1  # all four together, three of them behind one head
    assert data.describe()["tokens"] < data.describe()["tokens_apart"]
    with torch.no_grad():
        apart = logits_apart(folder, data)
        assert farthest(apart, logits_packed(model, data)) < 1e-4
        assert farthest(apart, logits_packed(model, data, segments=None)) < 1e-4  # by the mask, as on a GPU
        # a plain causal mask lets dialogs see one another: the check above can fail
        assert farthest(apart, logits_packed(model, data, segments=None, mask_B1TT=None)) > 1e-2


def test_padding_changes_no_loss_and_a_loss_is_the_mean_over_labels(task: CausalLm, folder: Path) -> None:
    model: Any = task.load_base(folder)
    lm = [prepared(model, task._form, [one]) for one in DIALOGS[:2]]
    with torch.no_grad():
        losses = [float(task.loss(model, data.collate([0], []))) for data in lm]
        layouts = [Layout(data.packs[0], data.dialogs) for data in lm]
        both = float(task.loss(model, [batch(layouts, model.device)]))
        masked = float(task.loss(model, [batch(layouts, model.device) | {"segments": None}]))
    units = [data.rows[0].units for data in lm]
    expected = sum(loss * count for loss, count in zip(losses, units, strict=True)) / sum(units)
    assert both == pytest.approx(expected, rel=1e-5)
    assert masked == pytest.approx(expected, rel=1e-5)


def test_a_gradient_goes_through_an_adapter_and_equals_that_of_dialogs_alone(task: CausalLm, folder: Path) -> None:
    base: Any = task.load_base(folder)
    torch.manual_seed(1)
    model: Any = attach(base, Adapter(rank=2, dropout=0.0), task.defaults.targets)
    parameters = {name: value for name, value in model.named_parameters() if value.requires_grad}
    assert parameters
    for value in parameters.values():
        torch.nn.init.normal_(value, std=0.1)
    data = prepared(base, task._form, DIALOGS)
    task.loss(model, data.collate([0], [])).backward()
    packed = {name: value.grad.clone() for name, value in parameters.items()}
    model.zero_grad()
    alone = [prepared(base, task._form, [one]) for one in DIALOGS]
    total = data.rows[0].units
    for one in alone:
        (task.loss(model, one.collate([0], [])) * one.rows[0].units / total).backward()
    for name, value in parameters.items():
        torch.testing.assert_close(packed[name], value.grad, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("num_phrases", [2, 20])
def test_no_dialog_is_trained_on_that_begins_in_a_watched_phrase(
    num_phrases: int, task: CausalLm, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = [record(f"{at}", f"Is {at} open?", "Yes.", "Or not?", "No.") for at in range(60)]
    for at, one in enumerate(records):
        one.lineage["parameters"]["asked"] = [f"Is <{at % num_phrases}> open?", "Or not?"]
    phrase_of = {one.id: one.lineage["parameters"]["asked"][0] for one in records}
    monkeypatch.setattr(causal_lm, "read_records", lambda *_: iter(records))
    task.recipe = task.recipe.replaced(train={"task": "causal-lm", "replay": 0, "early_stop": {"share": 0.2}})
    watched = {phrase_of[example.id.split("/")[0]] for example in task.validation(folder)}
    data = task.prepare(task.load_base(folder), folder, 1, lambda *_: None)
    trained = {phrase_of[dialog.record] for dialog in data.dialogs}
    assert len(watched) >= 1  # of two phrases a share of 0.2 may hold none: one is watched all the same
    assert not watched & trained
    assert len(watched | trained) == num_phrases


def test_replay_is_what_the_base_says_and_counts_by_its_labels(task: CausalLm, folder: Path) -> None:
    model: Any = task.load_base(folder)
    answered = [
        ("What is the opposite of hot?", Written("Cold, of course.")),
        ("Which day follows Monday?", Written("Tuesday.")),
    ]
    data = lm_data.prepare(
        task._form, 512, model.device, DIALOGS, Train(task="causal-lm"), 1, lambda *_: None, answered
    )
    (held,) = [row.records for row in data.replay]
    assert set(held) == {f"general/{text}" for text, _ in answered}
    own, both = (data.collate(*numbers) for numbers in (([0], []), ([0], [0])))
    assert task._form.tokenizer.decode(both[1]["targets_N"]).count("<|im_end|>") == 2
    with torch.no_grad():
        alone = [float(task.loss(model, [some])) for some in both]
        assert float(task.loss(model, own)) == pytest.approx(alone[0])
        units = (data.rows[0].units, data.replay[0].units)
        expected = (alone[0] * units[0] + alone[1] * units[1]) / sum(units)
        assert float(task.loss(model, both)) == pytest.approx(expected)


def test_replay_of_an_answer_that_was_cut_teaches_its_words_and_no_end(task: CausalLm, folder: Path) -> None:
    model: Any = task.load_base(folder)
    answered = [
        ("Who was he?", Written("He was a painter, and", is_whole=False)),
        ("What is it?", Written("A star \ufffd", is_whole=False)),
        ("Say it.", Written("\ufffd", is_whole=False)),  # nothing is left to learn
    ]
    for template in ("", MARKED):
        if template:
            task._form.tokenizer.chat_template = template
        data = lm_data.prepare(
            task._form, 512, model.device, DIALOGS, Train(task="causal-lm"), 1, lambda *_: None, answered
        )
        assert [
            task._form.tokenizer.decode([one.tokens.ids[at] for at in one.tokens.counted]) for one in data.general
        ] == ["He was a painter, and", "A star"]


def test_a_decoder_says_whether_an_answer_ended_by_itself(task: CausalLm, folder: Path) -> None:
    decoder = Decoder(task.load_base(folder), task._form)
    prompts = [task._form.prompt([{"role": "user", "content": text}]) for text in ("Hi.", "No")]
    assert [one.is_whole for one in decoder.write(prompts, 4)] == [False, False]
    (second,) = {row[1] for row in decoder._decode([prompts[0]] * 16, 4)}
    decoder.form.ends.add(second)
    (ended,) = decoder.write(prompts[:1], 4)
    assert ended == Written(task._form.read([row[0] for row in decoder._decode([prompts[0]] * 16, 1)][:1]))
    assert decoder.write(prompts[:1], 1)[0].is_whole is False


def test_the_base_answers_replay_whatever_the_adapter(task: CausalLm, folder: Path) -> None:
    model: Any = attach(task.load_base(folder), Adapter(rank=2, dropout=0.0), task.defaults.targets).eval()
    first = task._base_answers(model, lambda *_: None)
    with torch.no_grad():
        for value in model.parameters():
            if value.requires_grad:
                value.normal_()
    assert task._base_answers(model, lambda *_: None) == first
    judged = {one.text for one in judging()}
    assert first
    assert not judged & {question for question, _ in first}


def test_dialogs_over_the_context_are_left_out_and_counted(task: CausalLm, folder: Path) -> None:
    model: Any = task.load_base(folder)
    long = record("long", "word " * 600, "Yes.")
    data = prepared(model, task._form, [*DIALOGS, long])
    assert data.describe()["left_out"] == {"over_context": 1}
    assert data.describe()["dialogs"] == 4
    with pytest.raises(NothingSurvived, match=r"none of 1 dialogs can be trained on \(1 over_context\); .* 512 tokens"):
        prepared(model, task._form, [long])


def test_dialogs_that_the_template_does_not_fit_are_named_with_its_fault(task: CausalLm, folder: Path) -> None:
    model: Any = task.load_base(folder)
    task._form.tokenizer.chat_template = "{{ raise_exception('no more than two') if messages | length > 3 }}" + MARKED
    data = prepared(model, task._form, DIALOGS)
    assert data.describe()["left_out"] == {"unfit_for_template: no more than two": 1}
    long = record("long", "word " * 600, "Yes.")
    more = [record(name, "Hi.", "Yes?", "No.", "Well.") for name in ("six", "seven")]
    with pytest.raises(
        NothingSurvived, match=r"2 unfit_for_template: no more .* 1 over_context\); the base's chat temp"
    ):
        prepared(model, task._form, [*more, long])


def test_an_empty_data_set_is_an_error(task: CausalLm, folder: Path) -> None:
    model: Any = task.load_base(folder)
    with pytest.raises(NothingSurvived, match="no accepted dialog to train on"):
        prepared(model, task._form, [])


def test_every_dialog_is_in_exactly_one_row_within_its_size(task: CausalLm, folder: Path) -> None:
    model: Any = task.load_base(folder)
    many = [record(f"{at}", "word " * (at % 40 + 1), "fine " * (at % 23 + 1)) for at in range(120)]
    data = lm_data.prepare(task._form, 512, model.device, many, Train(task="causal-lm", budget=200), 1, lambda *_: None)
    assert sorted(name for row in data.rows for name in row.records) == sorted(one.id for one in many)
    assert all(row.size <= 200 for row in data.rows)
    for row, packed in zip(data.rows, data.packs, strict=True):
        layout = Layout(packed, data.dialogs)
        assert (len(layout.ids), len(layout.targets)) == (row.size, row.units)
    assert sum(row.size for row in data.rows) > 0.9 * 200 * len(data.rows)


def test_an_answer_does_not_depend_on_its_neighbours(task: CausalLm, folder: Path) -> None:
    decoder = Decoder(task.load_base(folder), task._form)
    plain: Any = plain_model(folder)
    prompts = [task._form.prompt([{"role": "user", "content": text}]) for text in ("Hi.", "Is it far from here?", "No")]
    together = decoder.write(prompts, 8)
    assert together == [decoder.write([prompt], 8)[0] for prompt in prompts]
    for prompt, one in zip(prompts, together, strict=True):  # transformers' own greedy search agrees
        given = torch.tensor([prompt])
        written = plain.generate(given, attention_mask=torch.ones_like(given), max_new_tokens=8, do_sample=False)
        ids = written[0, len(prompt) :].tolist()
        assert one == Written(task._form.read(ids), is_whole=bool(task._form.ends & set(ids)))


def test_a_short_answer_stays_short_beside_a_long_one(task: CausalLm, folder: Path) -> None:
    model = task.load_base(folder)
    short, long = (
        Example(f"{most}", text, "", {**tool_example(text).content, "tools": [], "most_tokens": most})
        for most, text in ((4, "Hi."), (12, "Is it far from here?"))
    )
    done: list[int] = []
    together = list(task.answer(model, [short, long, short], lambda now, _: done.append(now)))
    alone = [next(task.answer(model, [one], lambda *_: None)) for one in (short, long, short)]
    assert together == alone
    assert done == [1, 2, 3]
    assert len(task._form.tokenizer(together[0])["input_ids"]) <= 4


class Script:
    """Answers as it is told, in place of a decoder."""

    def __init__(self, *answers: str) -> None:
        self.answers = list(answers)
        self.prompts: list[list[int]] = []
        self.most: set[int] = set()

    def write(self, prompts: list[list[int]], most: int) -> list[Written]:
        self.most.add(most)
        self.prompts += prompts
        return [Written(self.answers.pop(0)) for _ in prompts]


def tool_example(text: str = "How much are 3 packs?") -> Example:
    content = {
        "messages": [{"role": "user", "content": text}], "tools": TOOLS, "environment": ENVIRONMENT.definition,
        "most_tokens": 32,
    }  # fmt: skip
    return Example("1", text, "[]", content)


def test_a_decoded_call_is_executed_and_its_result_given_back(task: CausalLm, folder: Path) -> None:
    task.load_base(folder)
    total = ENVIRONMENT.call("price", {"packs": 3})["total"]
    script: Any = Script(write_call(Call("price", {"packs": 3})), f"That is {total} pounds.")
    (text,) = task._answer_batch(script, 512, [tool_example()])
    turn = json.loads(text)
    assert [one["role"] for one in turn] == ["assistant", "tool", "assistant"]
    assert turn[0]["tool_calls"][0]["function"] == {"name": "price", "arguments": {"packs": 3}}
    assert json.loads(turn[1]["content"]) == {"total": total}
    assert f'"total":"{total}"' in task._form.tokenizer.decode(script.prompts[1])


def test_a_turn_is_shown_with_its_calls(task: CausalLm) -> None:
    calls: Any = [{"type": "function", "function": {"name": "price", "arguments": {"packs": 3}}}]
    turn = [{"role": "assistant", "content": "", "tool_calls": calls}, {"role": "tool", "content": '{"total":"<7>"}'}]
    shown = task.show_answer(write_turn([*turn, {"role": "assistant", "content": "That is 7."}]))
    assert shown.text.splitlines() == ["assistant: -> price(packs=3)", 'tool: {"total":"<7>"}', "assistant: That is 7."]
    assert "&lt;7&gt;" in shown.html and "<7>" not in shown.html
    assert task.show_answer("[1]").text == "assistant: [1]"
    asked = task.show_example(Example("1", "1", "Seven.", {"messages": [{"role": "user", "content": "How much?"}]}))
    assert asked.text.splitlines() == ["user: How much?", "assistant: Seven."]


def test_an_answer_that_only_calls_comes_to_an_end(task: CausalLm, folder: Path) -> None:
    task.load_base(folder)
    call = write_call(Call("price", {"packs": 3}))
    script: Any = Script(*[call] * 9)
    (text,) = task._answer_batch(script, 512, [tool_example()])
    assert len(script.answers) == 5  # three rounds of calls, and one that should have reported
    assert json.loads(text)[-1]["role"] == "tool"


def test_a_prompt_without_room_is_said_and_not_cut(task: CausalLm, folder: Path) -> None:
    task.load_base(folder)
    (text,) = task._answer_batch(Script(), 20, [tool_example()])  # type: ignore[arg-type]
    assert "leave no room in 20" in text


@pytest.mark.parametrize(("context", "most"), [(300, 96), (1024, 256), (8192, 512)])
def test_a_long_answers_room_is_a_quarter_of_a_short_context(
    context: int, most: int, task: CausalLm, folder: Path
) -> None:
    task._form = ChatFormat.of(folder)
    example = Example("1", "s", "", {**tool_example().content, "tools": [], "most_tokens": 512})
    script: Any = Script("Fine.")
    assert task._answer_batch(script, context, [example]) == ["Fine."]
    assert script.most == {most}


def test_a_base_without_a_chat_template_is_refused(task: CausalLm, folder: Path, tmp_path: Path) -> None:
    assert isinstance(task, ChecksBase)
    assert isinstance(task, Validates)
    copy = tmp_path / "bare"
    copy.mkdir()
    for path in folder.iterdir():
        if path.name != "chat_template.jinja":
            (copy / path.name).symlink_to(path)
    base = ResolvedModel("path:bare", copy, "", "", "", "")
    with pytest.raises(ModelError, match="no chat template; name an instruction-tuned model"):
        task.check_base(base, tmp_path)
    task.check_base(ResolvedModel("path:tiny", folder, "", "", "", ""), tmp_path)


def tiny_base(folder: Path, path: Path, model: Any) -> Path:
    """Lay a model beside the tiny base's tokenizer."""
    path.mkdir()
    for file in folder.iterdir():
        if file.name.startswith(("tokenizer", "chat_template", "special")):
            (path / file.name).symlink_to(file)
    model.save_pretrained(path)
    return path


def test_a_base_whose_packed_dialogs_see_one_another_is_refused(task: CausalLm, folder: Path, tmp_path: Path) -> None:
    from transformers import Lfm2Config, Lfm2ForCausalLM

    sizes = {
        "vocab_size": 64, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "max_position_embeddings": 128, "initializer_range": 0.3,
    }  # fmt: skip
    torch.manual_seed(0)
    for number, kinds in enumerate((["conv", "full_attention"], ["full_attention", "full_attention"])):
        config = Lfm2Config(**sizes, layer_types=kinds)
        path = tiny_base(folder, tmp_path / f"{number}", Lfm2ForCausalLM(config))
        if "conv" in kinds:
            with pytest.raises(ModelError, match=r"a dialog sees others .* whose layers mix tokens by attention alone"):
                task.load_base(path)
        else:
            task.load_base(path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"last_hidden_state": None}, "can't be run on packed dialogs, as causal-lm does: AttributeError"),
        ({"unexpected": "segments"}, "can't be run on packed dialogs, as causal-lm does: TypeError: no segments"),
        ({"logits": 2.0}, "changes its logits after the output layer"),
    ],
)
def test_a_base_that_loss_and_decoding_cannot_run_is_refused(
    task: CausalLm, folder: Path, change: dict[str, Any], said: str
) -> None:
    model: Any = task.load_base(folder)

    def changed(_: Any, __: Any, given: dict[str, Any], output: Any) -> Any:
        if change.get("unexpected") in given:
            raise TypeError("no segments")
        if "last_hidden_state" in change:
            output.last_hidden_state = None
        return output

    model.base_model.register_forward_hook(changed, with_kwargs=True)
    if "logits" in change:
        model.register_forward_hook(lambda _, __, output: setattr(output, "logits", output.logits * change["logits"]))
    with pytest.raises(ModelError, match=said):
        check_model(model, folder)


@pytest.mark.parametrize(("kind", "adapted"), [("Llama", 7), ("Phi3", 4)])  # linear layers of a block; some are fused
def test_an_adapter_is_put_on_every_linear_layer_of_a_block(task: CausalLm, kind: str, adapted: int) -> None:
    import transformers

    config = getattr(transformers, f"{kind}Config")(
        vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=4,
        pad_token_id=0, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    model: Any = attach(getattr(transformers, f"{kind}ForCausalLM")(config), Adapter(rank=2), task.defaults.targets)
    assert sum("lora_A" in name for name, _ in model.named_parameters()) == adapted


def test_a_base_whose_context_is_unknown_is_refused() -> None:
    from transformers import LlamaConfig, MambaConfig

    assert context_of(LlamaConfig(max_position_embeddings=512)) == 512
    with pytest.raises(ModelError, match=r"tiny/mamba: config.json has no max_position_embeddings"):
        context_of(MambaConfig(name_or_path="tiny/mamba"))


def test_what_a_user_types_becomes_a_message(task: CausalLm) -> None:
    messages = task.read_input("Where is it?").content["messages"]
    assert [one["role"] for one in messages] == ["system", "user"]
    with pytest.raises(SourceError, match="empty message"):
        task.read_input("  ")


def test_what_a_user_types_meets_the_recipes_tools() -> None:
    recipe = load_recipe(RECIPES / "support.yaml").replaced(train={"task": "causal-lm"})
    content = CausalLm(recipe).read_input("Where is RX-4847?").content
    names = [tool["function"]["name"] for tool in content["tools"]]
    assert all(f"{name}(" in content["messages"][0]["content"] for name in names)
    result = Environment.of(content["environment"]).call("order_status", {"order": "RX-4847"})
    assert result.keys() in ({"status", "date"}, {"error"})


def test_what_a_user_types_meets_a_tool_of_terms_though_the_recipe_names_none(tmp_path: Path) -> None:
    support = RECIPES / "support"
    tools = (support / "tools.yaml").read_text()
    (tmp_path / "tools.yaml").write_text(tools)
    assert "terms: true" in tools
    (tmp_path / "recipe.yaml").write_text(
        "version: 1\nname: t\nmodalities: {text: {tools: {dialogs: 9, file: tools.yaml}}}\ntrain: {task: causal-lm}\n"
    )
    recipe = load_recipe(tmp_path / "recipe.yaml")
    planned = plan(recipe.sections.modalities.text, Planning(0, "en", root=str(tmp_path))).item(0)
    assert CausalLm(recipe).read_input("Hi.").content["environment"] == planned.spec["environment"]


def test_what_decides_is_what_the_recipes_dialogs_can_show(task: CausalLm) -> None:
    tools = CausalLm(load_recipe(RECIPES / "support.yaml").replaced(train={"task": "causal-lm"}))
    assert (tools.primary_metric, tools.other_metric) == ("task failures", "reply errors")
    assert (task.primary_metric, task.other_metric) == ("reply errors", "")
    plain = Example("1", "s", "Keep it dry.", {"messages": [], "tools": []})
    assert task.measure(plain, "keep it DRY").counts == {"reply errors": (0.0, 1.0)}
    general = Example("2", "q", "Paris|Lutetia", {"messages": [], "tools": []}, {"topic": "capitals"})
    assert task.measure(general, "It is Paris.").counts == {"general errors": (0.0, 1.0), "spurious calls": (0.0, 1.0)}
    assert task.measure(general, "<tool_call>{").counts["spurious calls"] == (1.0, 1.0)


def test_activations_may_be_computed_twice(task: CausalLm, folder: Path) -> None:
    base: Any = task.load_base(folder)
    torch.manual_seed(1)
    model: Any = attach(base, Adapter(rank=2, dropout=0.0), task.defaults.targets).train()
    data = prepared(base, task._form, DIALOGS)
    gradients = []
    for is_checkpointed in (False, True):
        if is_checkpointed:
            base.activation_checkpointing_enable()
        model.zero_grad()
        task.loss(model, data.collate([0], [])).backward()
        gradients.append({name: value.grad.clone() for name, value in model.named_parameters() if value.requires_grad})
    for name, value in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], value)


def test_a_recipe_without_dialogs_is_refused(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("version: 1\nname: none\nmodalities: {}\ntrain: {task: causal-lm}\n")
    with pytest.raises(UsageError, match="needs dialogs; fill modalities.text"):
        CausalLm(load_recipe(tmp_path / "recipe.yaml"))


def test_the_exported_model_answers_as_the_adapter_does(task: CausalLm, folder: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.manual_seed(1)
    model: Any = attach(task.load_base(folder), Adapter(rank=2, dropout=0.0), task.defaults.targets)
    with torch.no_grad():
        for value in model.parameters():
            if value.requires_grad:
                value.normal_(std=0.2)
    save(model, tmp_path / "adapter", {"base": "path:tiny", "base_digest": "d"})
    task.export(folder, tmp_path / "adapter", tmp_path / "out")
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    ids = torch.tensor([AutoTokenizer.from_pretrained(tmp_path / "out")("Where is my order?")["input_ids"]])
    with torch.no_grad():
        torch.testing.assert_close(merged(ids).logits, model.eval()(ids).logits, atol=1e-3, rtol=1e-3)
