"""Linears that share x run as one: the first that is called computes all, and the others take their result.

Found by name: q, k and v of an attention, gate and up of an MLP; in cross-attention k and v alone. A result is handed
over only to the same thread, for the same x (object and version), under the same modes and with the same adapter. Any
other call computes anew, so what a member returns never depends on what ran before: a forward and the recomputation of
a checkpoint draw the same masks.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from tercet_kernels.dispatch import warn_once
from tercet_kernels.lora import lora_group
from tercet_kernels.peft.covering import Plan, plan

FAMILIES = (
    ("q_proj", "k_proj", "v_proj"), ("to_q", "to_k", "to_v"), ("add_q_proj", "add_k_proj", "add_v_proj"),
    ("query", "key", "value"), ("q", "k", "v"), ("q_lin", "k_lin", "v_lin"), ("wq", "wk", "wv"),
    ("gate_proj", "up_proj"), ("w1", "w3"), ("wi_0", "wi_1"),
)  # fmt: skip
CROSS = {"encoder_attn", "attn2", "crossattention", "cross_attn", "cross_attention", "EncDecAttention"}


class Stash(NamedTuple):
    """What one call left for the other members of its group."""

    x: weakref.ref[Tensor]
    modes: tuple[Any, ...]
    waiting: dict[int, tuple[Plan, tuple[int, ...], Tensor]]


class Group:
    """Linears that share x; each thread has a stash of its own."""

    def __init__(self, name: str, members: Mapping[str, nn.Module]) -> None:
        self.name, self.names = name, list(members)
        self._members: list[Callable[[], Any]] = [weakref.ref(module) for module in members.values()]
        self._local = threading.local()

    def __getstate__(self) -> dict[str, Any]:
        """Leave the stash behind: a copy or a pickled group starts empty."""
        return {"name": self.name, "names": self.names, "members": [member() for member in self._members]}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.name, self.names = state["name"], state["names"]
        self._members = [_never if module is None else weakref.ref(module) for module in state["members"]]
        self._local = threading.local()

    def __str__(self) -> str:
        return f"{self.name}: {', '.join(self.names)}"

    def join(self) -> None:
        """Let the members know their group."""
        for index, member in enumerate(self._members):
            module: Any = member()
            module.tercet_place = module.tercet_place._replace(group=self, order=index)

    def run(self, x: Tensor, index: int, mine: Plan, path: str) -> Tensor:
        """Return y of member `index`: what a sibling left for it, or one computation for all."""
        if x.is_inference():  # it counts no versions, so a change between two calls would go unseen
            return lora_group(x, [mine.member], path=path)[0]
        modes = _modes(x)
        y = self._take(x, index, mine, modes)
        return self._lead(x, index, mine, path, modes) if y is None else y

    def _take(self, x: Tensor, index: int, mine: Plan, modes: tuple[Any, ...]) -> Tensor | None:
        """Return what a sibling left for member `index` in this very situation."""
        stash: Stash | None = getattr(self._local, "stash", None)
        left = stash.waiting.pop(index, None) if stash else None
        if not stash or not left:
            return None
        if not stash.waiting:
            self._local.stash = None
        before = stash.x()
        if before is x and stash.modes == modes and _is_same(left, mine):
            return left[2]
        if before is not None and before is not x:
            warn_once(
                f"{self}: called with different x, so what one computes for the others is lost; "
                "where the model means that, call fuse(model, groups=False)"
            )
        return None

    def _lead(self, x: Tensor, index: int, mine: Plan, path: str, modes: tuple[Any, ...]) -> Tensor:
        self._local.stash = None  # the last call's graph may go before this one's is made
        plans = {other: found for other in range(len(self._members)) if (found := self._plan_of(other, index, mine))}
        ys = dict(zip(plans, lora_group(x, [found.member for found in plans.values()], path=path), strict=True))
        y = ys.pop(index)
        if ys:
            waiting = {other: (plans[other], _stamp(plans[other]), ys[other]) for other in ys}
            # where x dies nobody can ask any more
            self._local.stash = Stash(weakref.ref(x, lambda _: waiting.clear()), modes, waiting)
        return y

    def _plan_of(self, other: int, index: int, mine: Plan) -> Plan | None:
        """Return the plan of a member that can run beside `mine` now."""
        if other == index:
            return mine
        module = self._members[other]()
        found = "gone" if module is None else plan(module)
        if isinstance(found, str) or found.magnitude_N is not None:
            return None
        theirs, ours = found.member.weight_NK, mine.member.weight_NK
        fits = theirs.dtype == ours.dtype and theirs.device == ours.device and theirs.shape[1] == ours.shape[1]
        return found if fits else None


def groups_of(fused: Mapping[str, nn.Module]) -> list[Group]:
    """Find the groups among fused layers, given by their names in the model."""
    groups = []
    for parent in dict.fromkeys(name.rpartition(".")[0] for name in fused):
        prefix = f"{parent}." if parent else ""
        for family in FAMILIES:
            shared = family[1:] if len(family) == 3 and CROSS & set(parent.split(".")[-2:]) else family
            members = {name: fused[prefix + name] for name in shared if prefix + name in fused}
            members = {name: module for name, module in members.items() if isinstance(module.base_layer, nn.Linear)}
            if len(members) > 1:
                groups.append(Group(parent, members))
    return groups


def _modes(x: Tensor) -> tuple[Any, ...]:
    """Return what else a result depends on. The hooks tell one checkpointed region from another."""
    device = x.device.type
    autocast = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
    hooks = torch._C._autograd._top_saved_tensors_default_hooks(True)
    return x._version, x.requires_grad, torch.is_grad_enabled(), autocast, hooks


def _is_same(left: tuple[Plan, tuple[int, ...], Tensor], mine: Plan) -> bool:
    """Tell whether a result was computed with the weights and numbers of `mine`."""
    before, now = left[0].member, mine.member
    return (
        mine.magnitude_N is None
        and before.weight_NK is now.weight_NK
        and before.bias_N is now.bias_N
        and before.a_RK is now.a_RK
        and before.b_NR is now.b_NR
        and before.scaling == now.scaling
        and before.dropout == now.dropout
        and left[1] == _stamp(mine)
    )


def _stamp(found: Plan) -> tuple[int, ...]:
    """Count the changes in place of a member's tensors; one made in inference mode counts none."""
    member = found.member
    tensors = (member.weight_NK, member.bias_N, member.a_RK, member.b_NR)
    return tuple(0 if tensor is None or tensor.is_inference() else tensor._version for tensor in tensors)


def _never() -> None:
    """Stand for a member that was gone when its group was copied."""
