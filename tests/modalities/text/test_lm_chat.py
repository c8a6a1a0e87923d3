"""Dialogs through a chat template: the plain template's tokens, and exactly the assistant's words counted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tercet.compat import prepare_torchaudio
from tercet.errors import ModelError
from tercet.models import resolve
from tercet_text.calls import Call, chat_messages
from tercet_text.causal_lm_chat import HOW_TO_CALL, ChatFormat, TemplateFault, parse, write_call
from tercet_text.dialog import message

CALL = Call("price", {"packs": 3, "medicine": "folic acid"})
TOOL = {
    "type": "function",
    "function": {"name": "price", "description": "price of packs", "parameters": {"type": "object", "properties": {}}},
}
DIALOG = chat_messages(
    [
        message("system", "You help."),
        message("user", "How much are 3 packs?"),
        message("assistant", "", [CALL]),
        message("tool", '{"total":"4.50"}'),
        message("assistant", "That is 4.50 pounds."),
        message("user", "Thanks é 漢字 🙂"),
        message("assistant", "My pleasure 🙂!"),
    ]
)
END = "<|im_end|>"
NATIVE = (
    "{% for tool in tools or [] %}T:{{ tool | tojson }}\n{% endfor %}{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{{ m.content }}{% for c in m.tool_calls or [] %}<tool_call>{{ c.function | tojson }}</tool_call>{% endfor %}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
MARKED = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' %}{% generation %}{{ m.content }}"
    "<|im_end|>{% endgeneration %}{% else %}{{ m.content }}<|im_end|>{% endif %}\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
NO_SYSTEM = (
    "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    "<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LAST_ALONE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content if loop.last else 'gone' }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    prepare_torchaudio()
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(resolve("auto", "chat").path)


def form_of(tokenizer: Any, template: str = "") -> ChatFormat:
    tokenizer = type(tokenizer).from_pretrained(tokenizer.name_or_path)
    if template:
        tokenizer.chat_template = template
    return ChatFormat(tokenizer, {tokenizer.eos_token_id})


def counted_text(form: ChatFormat, messages: list[dict[str, Any]], tools: list[Any]) -> str:
    [tokens] = form.pieces(messages, tools)
    return str(form.tokenizer.decode([tokens.ids[at] for at in tokens.counted]))


@pytest.mark.parametrize("template", ["", NATIVE, NO_SYSTEM])
def test_the_counted_tokens_are_the_assistants_words_and_ends(tokenizer: Any, template: str) -> None:
    form = form_of(tokenizer, template)
    call = write_call(CALL) if not form.knows_tools else counted_call(form)
    expected = [call, "That is 4.50 pounds.", "My pleasure 🙂!"]
    assert counted_text(form, DIALOG, [TOOL]) == "".join(text + END for text in expected)


def counted_call(form: ChatFormat) -> str:
    rendered = str(form.tokenizer.apply_chat_template(DIALOG[:3], tokenize=False))
    return rendered[rendered.index("<tool_call>") : rendered.index(END, rendered.index("<tool_call>"))]


def test_a_template_that_marks_the_assistant_is_believed(tokenizer: Any) -> None:
    form = form_of(tokenizer, MARKED)
    expected = [write_call(CALL), "That is 4.50 pounds.", "My pleasure 🙂!"]
    assert counted_text(form, DIALOG, [TOOL]) == "".join(text + END for text in expected)


WORDS = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=30)


@settings(max_examples=40, deadline=None)
@given(said=st.lists(st.tuples(WORDS, WORDS), min_size=1, max_size=4))
def test_any_dialog_has_the_plain_templates_tokens(tokenizer: Any, said: list[tuple[str, str]]) -> None:
    form = ChatFormat(tokenizer, {tokenizer.eos_token_id})
    messages = [
        {"role": role, "content": text} for pair in said for role, text in zip(("user", "assistant"), pair, strict=True)
    ]
    [tokens] = form.pieces(messages)
    assert list(tokens.ids) == list(tokenizer.apply_chat_template(messages, return_dict=True)["input_ids"])
    counted = tokenizer.decode([tokens.ids[at] for at in tokens.counted])
    assert counted == tokenizer.decode(
        [token for _, text in said for token in tokenizer(text + END, add_special_tokens=False)["input_ids"]]
    )


def test_a_prompt_and_its_answer_are_the_beginning_of_the_dialog(tokenizer: Any) -> None:
    form = form_of(tokenizer)
    whole = form.pieces(DIALOG, [TOOL])[0].ids
    for at in (2, 4, 6):
        prompt = form.prompt(DIALOG[:at], [TOOL])
        assert list(whole[: len(prompt)]) == prompt


def test_what_the_template_knows_is_found_by_trying_it(tokenizer: Any) -> None:
    plain, native, bare = (form_of(tokenizer, template) for template in ("", NATIVE, NO_SYSTEM))
    assert (plain.knows_tools, native.knows_tools, bare.knows_tools) == (False, True, False)
    assert (plain.knows_system, native.knows_system, bare.knows_system) == (True, True, False)
    assert native.fold(DIALOG, [TOOL]) == DIALOG
    folded = plain.fold(DIALOG, [TOOL])
    assert {one["role"] for one in folded} == {"system", "user", "assistant"}
    assert folded[0]["content"] == f"You help.\nTools:\nprice(): price of packs\n{HOW_TO_CALL}"
    assert folded[3] == {"role": "user", "content": '<tool_response>{"total":"4.50"}</tool_response>'}
    first = bare.fold(DIALOG, [TOOL])[0]
    assert first["role"] == "user"
    assert first["content"].endswith("How much are 3 packs?")


def test_tools_that_the_system_message_names_are_not_named_again(tokenizer: Any) -> None:
    messages = [{"role": "system", "content": "Tools:\nprice(packs: 1-9): price"}, {"role": "user", "content": "Hi"}]
    assert form_of(tokenizer).fold(messages, [TOOL])[0]["content"] == f"{messages[0]['content']}\n{HOW_TO_CALL}"


def test_a_template_that_rewrites_the_past_is_refused(tokenizer: Any) -> None:
    with pytest.raises(TemplateFault, match="asks for a turn otherwise than it renders what stands before it"):
        form_of(tokenizer, LAST_ALONE).pieces(DIALOG[:5])


@pytest.mark.parametrize("knows_how_not_to", [True, False])
def test_a_template_that_thinks_before_the_last_answer_alone_gives_a_piece_per_answer(
    tokenizer: Any, knows_how_not_to: bool
) -> None:
    thought = "<think></think>\n"  # as Qwen3's
    past = "{{ m.content }}"
    thinking = NATIVE.replace(past, f"{{{{ {thought!r} if m.role == 'assistant' and loop.last }}}}{past}")
    if knows_how_not_to:
        unless = f"{{% if enable_thinking is defined and not enable_thinking %}}{thought}{{% endif %}}"
        thinking = thinking.replace("assistant\n{% endif %}", f"assistant\n{unless}{{% endif %}}")
    form = form_of(tokenizer, thinking)
    assert form.knows_tools
    pieces = form.pieces(DIALOG, [TOOL])
    answers = [at for at, one in enumerate(DIALOG) if one["role"] == "assistant"]
    for at, piece in zip(answers, pieces, strict=True):
        prompt = form.prompt(DIALOG[:at], [TOOL])
        assert list(piece.ids[: len(prompt)]) == prompt  # learned as it will be asked
        said = tokenizer.decode([piece.ids[place] for place in piece.counted])
        answer = DIALOG[at]["content"] or counted_call(form)
        assert said == ("" if knows_how_not_to else thought) + answer + END


ENDS_ONCE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' %}{% generation %}{{ m.content }}"
    "{{ '<|im_end|>' if loop.index < 3 }}{% endgeneration %}{% else %}{{ m.content }}<|im_end|>{% endif %}{% endfor %}"
)
CALLS_ALONE = NATIVE.replace(
    "{% for c in", "{{ raise_exception('no call here') if m.tool_calls and not loop.last }}{% for c in"
)
NO_CALLS = NO_SYSTEM.replace(
    "{% for m in messages %}", "{% for m in messages %}{{ raise_exception('no <') if '<' in m.content }}"
)


@pytest.mark.parametrize(
    ("template", "said"),
    [
        (LAST_ALONE, "a dialog of one turn: it asks for a turn otherwise than it renders what stands before it; mend"),
        (ENDS_ONCE, "a dialog of two turns: an assistant's turn isn't ended by a token that ends an answer"),
        ("{{ raise_exception('no') }}{% generation %}{% endgeneration %}", "a dialog of one turn: no;"),
        (NO_CALLS, "a dialog with a call and its result: no <;"),
    ],
)
def test_a_template_that_does_not_fit_dialogs_is_refused(
    tokenizer: Any, tmp_path: Path, template: str, said: str
) -> None:
    changed = form_of(tokenizer, template).tokenizer
    changed.save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=rf"{tmp_path}: its chat template can't be trained on: {said}"):
        ChatFormat.of(tmp_path)


def test_a_template_that_writes_calls_otherwise_in_the_whole_is_given_them_as_words(tokenizer: Any) -> None:
    assert not form_of(tokenizer, CALLS_ALONE).knows_tools


def test_a_tokenizer_without_offsets_is_refused(
    tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import AutoTokenizer

    class WithoutOffsets(type(tokenizer)):  # type: ignore[misc]
        def __call__(self, *said: Any, **wishes: Any) -> Any:
            if wishes.get("return_offsets_mapping"):
                raise NotImplementedError("return_offset_mapping is not available when using Python tokenizers.")
            return super().__call__(*said, **wishes)

    found = WithoutOffsets.from_pretrained(tokenizer.name_or_path)
    monkeypatch.setattr(AutoTokenizer, "from_pretrained", lambda _: found)
    with pytest.raises(ModelError, match=r"doesn't say where tokens stand in a text"):
        ChatFormat.of(tmp_path)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.builds(
            Call,
            st.text(st.characters(exclude_characters="<>"), max_size=9),
            st.dictionaries(st.text(max_size=5), st.integers() | st.text(st.characters(exclude_characters="<>"))),
        ),
        max_size=3,
    )
)
def test_written_calls_are_read_back(calls: list[Call]) -> None:
    assert parse("Let me see. " + "\n".join(write_call(call) for call in calls)) == calls


@pytest.mark.parametrize(
    "text",
    ["<tool_call>{", "<tool_call>[1]</tool_call>", '<tool_call>{"name": 3, "arguments": {}}</tool_call>',
     '<tool_call>{"name": "price"}</tool_call>', "<tool_call>" + "[" * 100_000],
)  # fmt: skip
def test_a_call_that_cannot_be_read_is_none(text: str) -> None:
    assert parse(text) is None


def test_text_without_a_call_makes_none() -> None:
    assert parse(json.dumps({"name": "price", "arguments": {}})) == []
