"""Answers of `causal-lm` are decoded turns: of suites or of a user, with calls that are executed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.modalities.text.causal_lm.conftest import plain_model

from tercet.errors import SourceError
from tercet.modality import Planning
from tercet.recipe import load_recipe
from tercet.train.task import Example
from tercet_text.calls import Call
from tercet_text.causal_lm import CausalLm
from tercet_text.causal_lm_chat import ChatFormat, write_call
from tercet_text.causal_lm_decoding import Decoder, Written
from tercet_text.environment import Domain, Environment, Tool
from tercet_text.lm_metrics import write_turn
from tercet_text.plan import plan

TOOL = Tool(name="price", description="price of packs", parameters={"packs": Domain(integer=(1, 9))},
            returns={"total": Domain(price=(1.0, 9.0))})  # fmt: skip
ENVIRONMENT = Environment([TOOL], 1)
TOOLS = [TOOL.function_schema()]
RECIPES = Path(__file__).parents[4] / "recipes"


def test_a_decoder_says_whether_an_answer_ended_by_itself(task: CausalLm, folder: Path) -> None:
    decoder = Decoder(task.load_base(folder), task._form)
    prompts = [task._form.prompt([{"role": "user", "content": text}]) for text in ("Hi.", "No")]
    assert [one.is_whole for one in decoder.write(prompts, 4)] == [False, False]
    (second,) = {row[1] for row in decoder._decode([prompts[0]] * 16, 4)}
    decoder.form.ends.add(second)
    (ended,) = decoder.write(prompts[:1], 4)
    assert ended == Written(task._form.read([row[0] for row in decoder._decode([prompts[0]] * 16, 1)][:1]))
    assert decoder.write(prompts[:1], 1)[0].is_whole is False


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
