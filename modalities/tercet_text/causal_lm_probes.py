"""What a base must do that loss and decoding rely on, tried on a few tokens before anything is trained.

V: vocabulary, N: labels.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from tercet.errors import ModelError
from tercet_text.causal_lm_chat import Tokens
from tercet_text.causal_lm_packing import Dialog, Layout, Pack, batch

if TYPE_CHECKING:
    import torch

# a row of three dialogs, two of them behind a shared head of 4 tokens: where each begins (an odd number), its labels
HEAD, SIZE = 4, 12
STARTS, LABELS = (3, 5, 9), ((6, 11), (4, 11), (1, 11))
ROW = Pack(((HEAD, (0, 1)), (0, (2,))), 3 * SIZE - HEAD)
LEAK = 1e-3  # of the largest logit: SmolLM2 in fp32 gives 1.4e-6, a convolution over the row gave 0.08 and 1.4
FAULTS = (AttributeError, IndexError, KeyError, NotImplementedError, RuntimeError, TypeError, ValueError)


def check_model(model: Any, path: Path) -> None:
    """Refuse a model that can't be trained on packed dialogs by its trunk and its output layer.

    Raises:
        ModelError: the trunk can't be run on a packed row, the logits are more than the output layer gives, or dialogs
            of a row see one another.
    """
    import torch

    dialogs = [_dialog(at, model.config.get_text_config().vocab_size) for at in range(len(STARTS))]
    try:
        with torch.no_grad():
            packed_NV = _packed(model, dialogs)
            ours_NV, its_NV = _alone(model, dialogs)
    except FAULTS as error:
        raise ModelError(
            f"{path}: {type(model).__name__} can't be run on packed dialogs, as causal-lm does: "
            f"{type(error).__name__}: {str(error)[:200]}; name another train.base"
        ) from error
    if not torch.allclose(ours_NV, its_NV, atol=1e-4, rtol=1e-4):
        raise ModelError(
            f"{path}: {type(model).__name__} changes its logits after the output layer, which causal-lm can't train; "
            "name another train.base"
        )
    difference, largest = (float(one.abs().max()) for one in (packed_NV - ours_NV, ours_NV))
    if not difference <= LEAK * largest:
        raise ModelError(
            f"{path}: in {type(model).__name__} a dialog sees others that are packed into its row (its logits change "
            f"by {difference:.2g} of {largest:.2g}), as with convolutions or a recurrent state; name a train.base "
            "whose layers mix tokens by attention alone"
        )


def _dialog(number: int, vocabulary: int) -> Dialog:
    head = STARTS[0 if number < 2 else number]  # the first two begin alike
    ids = [(head + 7 * at) % vocabulary for at in range(HEAD)]
    ids += [(STARTS[number] + 11 * at) % vocabulary for at in range(HEAD, SIZE)]
    return Dialog(f"probe {number}", Tokens(tuple(ids), LABELS[number]), f"{head}")


def _packed(model: Any, dialogs: list[Dialog]) -> torch.Tensor:
    """Give the logits of all labels, computed as the loss does."""
    row = batch([Layout(ROW, dialogs)], model.device)
    hidden_BTD = run_packed(model, row)
    logits_NV: torch.Tensor = model.get_output_embeddings()(hidden_BTD.flatten(0, 1)[row["sources_N"]])
    return logits_NV


def run_packed(model: Any, row: Any) -> torch.Tensor:
    """Run the trunk on packed rows; `causal_lm_packing.batch` names their tensors."""
    hidden_BTD: torch.Tensor = model.base_model(
        row["ids_BT"],
        attention_mask=row["mask_B1TT"],
        position_ids=row["positions_BT"],
        use_cache=False,
        segments=row["segments"],
    ).last_hidden_state
    return hidden_BTD


def _alone(model: Any, dialogs: list[Dialog]) -> tuple[torch.Tensor, torch.Tensor]:
    """Give the logits of all labels, each dialog alone: by trunk and output layer, and as the model gives them."""
    import torch

    ours, its = [], []
    for dialog in dialogs:
        ids_1T = torch.tensor([dialog.tokens.ids], device=model.device)
        sources = [place - 1 for place in dialog.tokens.counted]
        hidden_TD = model.base_model(ids_1T, use_cache=False).last_hidden_state[0]
        ours.append(model.get_output_embeddings()(hidden_TD[sources]))
        its.append(model(ids_1T, use_cache=False).logits[0, sources])
    return torch.cat(ours), torch.cat(its)
