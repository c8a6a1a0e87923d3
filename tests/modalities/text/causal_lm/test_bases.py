"""Which bases and recipes `causal-lm` takes, where its adapter sits in them, and what it exports."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tercet.errors import ModelError, UsageError
from tercet.models.reference import ResolvedModel
from tercet.recipe import Adapter, load_recipe
from tercet.train.adapters import attach, save
from tercet.train.task import ChecksBase, Validates
from tercet_text.causal_lm import CausalLm, context_of
from tercet_text.causal_lm_probes import check_model


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


@pytest.mark.parametrize(
    ("kind", "more", "said"),
    [
        ("Gemma2", {"head_dim": 8, "final_logit_softcapping": None}, "its attention has a soft cap"),
        ("GptOss", {"head_dim": 8, "num_local_experts": 2, "num_experts_per_tok": 1}, "its attention has sinks"),
    ],
)
def test_a_base_that_attends_in_a_way_of_its_own_is_refused(
    task: CausalLm, folder: Path, tmp_path: Path, kind: str, more: dict[str, Any], said: str
) -> None:
    import transformers

    config = getattr(transformers, f"{kind}Config")(
        vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=128, pad_token_id=0, bos_token_id=1, eos_token_id=2, **more,
    )  # fmt: skip
    path = tiny_base(folder, tmp_path / kind, getattr(transformers, f"{kind}ForCausalLM")(config))
    with pytest.raises(ModelError, match=f"can't be run on packed dialogs.*NotImplementedError: {said}; name another"):
        task.load_base(path)


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
