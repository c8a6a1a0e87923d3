"""LoRA on a CPU against PEFT: what a layer keeps for its backward, and the time of layers and of fine-tuning steps.

    python benchmarks/kernels/lora_cpu.py --pairs 30

Times are pairs in ABBA order in one process, and the result is the ratio within each pair: fused / PEFT, below 1 is
faster. The interval is the bootstrap's, 95 %, of the median. Models have their real shapes and random weights. Prints
tables and writes benchmarks/results/kernels-lora-cpu.json.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import statistics
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from torch import Tensor, nn

from tercet_kernels.peft import fuse

RANK = 16
RATES = (0.0, 0.05)
RESULTS = Path(__file__).parents[1] / "results" / "kernels-lora-cpu.json"
ATTENTION = ("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2")
LLAMA = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
# rows, inputs, outputs: as in a step on 1,500 frames, on 256 tokens, on a 32 x 32 latent
LINEARS = {
    "Whisper tiny, q_proj": (1500, 384, 384),
    "Whisper tiny, fc1": (1500, 384, 1536),
    "Whisper tiny, fc2": (1500, 1536, 384),
    "SmolLM2-135M, q_proj": (256, 576, 576),
    "SmolLM2-135M, gate_proj": (256, 576, 1536),
    "SmolLM2-135M, down_proj": (256, 1536, 576),
    "UNet, to_q": (1024, 320, 320),
    "UNet, to_out": (256, 1280, 1280),
}


class Shared(nn.Module):
    """Linears q, k, v of one x: a group where there is more than one."""

    def __init__(self, inputs: int, outputs: int, count: int = 1) -> None:
        super().__init__()
        self.linears = nn.ModuleDict({name: nn.Linear(inputs, outputs) for name in ("q", "k", "v")[:count]})

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return y of each."""
        return [linear(x) for linear in self.linears.values()]


class Pixels(nn.Module):
    """A 1x1 convolution, as a UNet's proj_in."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return y."""
        return [self.conv(x)]


def adapted(base: nn.Module, targets: list[str], dropout: float) -> Any:
    from peft import LoraConfig, get_peft_model

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=FutureWarning)
        model = get_peft_model(base, LoraConfig(r=RANK, target_modules=targets, lora_dropout=dropout))
    with torch.no_grad():
        for name, value in model.named_parameters():
            if "lora_B" in name:
                value.normal_(std=0.01)
    return model


def kept_bytes(model: nn.Module, x: Tensor) -> tuple[int, int]:
    """Return the bytes of unique storages kept for the backward that are no parameters, with x's and without."""
    own = {value.untyped_storage().data_ptr() for value in model.parameters()}
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        ys = model(x)  # the graph, and with it what was kept, lives on: no address is used twice
    total = sum(kept.values())
    del ys
    return total, total - kept.get(x.untyped_storage().data_ptr(), 0)


def measure_memory() -> list[dict[str, Any]]:
    rows = []
    for dtype in (torch.float32, torch.bfloat16):
        for count, what in ((1, "one linear"), (3, "a q/k/v group")):
            for dropout in RATES:
                model = adapted(Shared(768, 768, count), ["q", "k", "v"], dropout).to(dtype)
                x = torch.randn(1024, 768, dtype=dtype, requires_grad=True)
                peft = kept_bytes(model, x)
                fuse(model)
                ours = kept_bytes(model, x)
                rows.append(
                    {
                        "what": what, "dtype": str(dtype).removeprefix("torch."), "dropout": dropout,
                        "peft_bytes": peft[0], "fused_bytes": ours[0], "ratio": ours[0] / peft[0],
                        "peft_without_x": peft[1], "fused_without_x": ours[1],
                        "ratio_without_x": ours[1] / peft[1],
                    }
                )  # fmt: skip
    return rows


def paired(peft: Callable[[], None], fused: Callable[[], None], pairs: int, repeat: int = 1) -> dict[str, Any]:
    """Time both in ABBA order and return the ratio fused / PEFT of each pair, summed up."""

    def seconds(run: Callable[[], None]) -> float:
        start = time.perf_counter()
        for _ in range(repeat):
            run()
        return (time.perf_counter() - start) / repeat

    for run in (peft, fused, peft, fused):
        run()
    times: dict[str, list[float]] = {"peft": [], "fused": []}
    for number in range(pairs):
        order = (("peft", peft), ("fused", fused))
        for name, run in order if number % 2 == 0 else order[::-1]:
            times[name].append(seconds(run))
    ratios = np.array(times["fused"]) / np.array(times["peft"])
    draws = np.random.default_rng(0).integers(0, pairs, (4000, pairs))
    low, high = np.quantile(np.median(ratios[draws], axis=1), (0.025, 0.975))
    return {
        "pairs": pairs, "peft_ms": 1e3 * statistics.median(times["peft"]),
        "fused_ms": 1e3 * statistics.median(times["fused"]),
        "ratio": float(np.median(ratios)), "low": float(low), "high": float(high),
    }  # fmt: skip


def measure_layers(pairs: int, only: str) -> list[dict[str, Any]]:
    """Time forward and backward of single layers and groups."""
    cases: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
        what: (Shared(inputs, outputs), (num_rows, inputs)) for what, (num_rows, inputs, outputs) in LINEARS.items()
    }
    cases["Whisper tiny, q/k/v"] = Shared(384, 384, 3), (1500, 384)
    cases["SmolLM2-135M, three of 576"] = Shared(576, 576, 3), (256, 576)
    cases["UNet, proj_in, 1x1"] = Pixels(320, 320), (1, 320, 32, 32)
    rows = []
    for what, (base, shape) in cases.items():
        for dropout in RATES if only in what else ():
            model = adapted(copy.deepcopy(base), ["q", "k", "v"] if isinstance(base, Shared) else ["conv"], dropout)
            x = torch.randn(shape, requires_grad=True)

            def step(some: nn.Module, x: Tensor = x) -> None:
                ys = some(x)
                torch.autograd.backward(ys, [torch.ones_like(y) for y in ys])

            rows.append({"what": what, "dropout": dropout, **against_peft(model, step, pairs, repeat=5)})
            print(line(rows[-1]), flush=True)
    return rows


def measure_steps(pairs: int, only: str) -> list[dict[str, Any]]:
    """Time a fine-tuning step, forward, backward and AdamW, of whole models."""
    rows = []
    for what, (build, targets, make_batch) in {"SmolLM2-135M": SMOL, "Whisper tiny": WHISPER}.items():
        for dropout in RATES if only in what else ():
            torch.manual_seed(0)
            model = adapted(build(), list(targets), dropout).train()
            optimisers: dict[int, torch.optim.Optimizer] = {}
            inputs = make_batch()

            def step(
                some: nn.Module, inputs: Any = inputs, optimisers: dict[int, torch.optim.Optimizer] = optimisers
            ) -> None:
                trained = [value for value in some.parameters() if value.requires_grad]
                optimiser = optimisers.setdefault(id(some), torch.optim.AdamW(trained, lr=1e-4))
                optimiser.zero_grad()
                some(**inputs).loss.backward()
                optimiser.step()

            rows.append({"what": f"{what}, step", "dropout": dropout, **against_peft(model, step, pairs)})
            print(line(rows[-1]), flush=True)
    return rows


def against_peft(model: nn.Module, step: Callable[[nn.Module], None], pairs: int, repeat: int = 1) -> dict[str, Any]:
    """Pair PEFT's step with a fused copy's."""
    fused = copy.deepcopy(model)
    assert fuse(fused)
    return paired(lambda: step(model), lambda: step(fused), pairs, repeat)


def smol() -> nn.Module:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        hidden_size=576, num_hidden_layers=30, num_attention_heads=9, num_key_value_heads=3, intermediate_size=1536,
        vocab_size=49152, tie_word_embeddings=True,
    )  # fmt: skip
    return LlamaForCausalLM(config)  # type: ignore[no-any-return]


def whisper() -> nn.Module:
    from transformers import WhisperConfig, WhisperForConditionalGeneration

    config = WhisperConfig(
        d_model=384, encoder_layers=4, decoder_layers=4, encoder_attention_heads=6, decoder_attention_heads=6,
        encoder_ffn_dim=1536, decoder_ffn_dim=1536, vocab_size=51865,
    )  # fmt: skip
    return WhisperForConditionalGeneration(config)  # type: ignore[no-any-return]


def tokens() -> dict[str, Tensor]:
    ids = torch.randint(0, 49152, (2, 128))
    return {"input_ids": ids, "labels": ids}


def speech() -> dict[str, Tensor]:
    return {"input_features": torch.randn(1, 80, 3000), "labels": torch.randint(0, 50000, (1, 32))}


SMOL = (smol, LLAMA, tokens)
WHISPER = (whisper, ATTENTION, speech)


def line(row: dict[str, Any]) -> str:
    return (
        f"| {row['what']} | {row['dropout']} | {row['peft_ms']:.2f} | {row['fused_ms']:.2f} "
        f"| {row['ratio']:.3f} | {row['low']:.3f} to {row['high']:.3f} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=30, help="pairs per layer")
    parser.add_argument("--step-pairs", type=int, default=None, help="pairs per fine-tuning step (default: as --pairs)")
    parser.add_argument("--only", default="", help="measure times only where the name holds this")
    parser.add_argument("--output", type=Path, default=RESULTS)
    asked = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    load = os.getloadavg()[0]
    memory = measure_memory()
    print("| kept for the backward | dtype | p | PEFT KiB | fused KiB | ratio | ratio without x |\n|" + "---|" * 7)
    for row in memory:
        print(
            f"| {row['what']} | {row['dtype']} | {row['dropout']} | {row['peft_bytes'] / 1024:.0f} "
            f"| {row['fused_bytes'] / 1024:.0f} | {row['ratio']:.3f} | {row['ratio_without_x']:.3f} |"
        )
    print("\n| forward and backward | p | PEFT ms | fused ms | fused / PEFT | 95 % |\n|" + "---|" * 6)
    layers = measure_layers(asked.pairs, asked.only)
    steps = measure_steps(asked.step_pairs or asked.pairs, asked.only)
    result = {
        "command": f"python benchmarks/kernels/lora_cpu.py --pairs {asked.pairs}"
        + (f" --step-pairs {asked.step_pairs}" if asked.step_pairs else "")
        + (f" --only {asked.only!r}" if asked.only else ""),
        "torch": torch.__version__, "threads": torch.get_num_threads(), "cores": os.cpu_count(),
        "load_before": round(load, 1), "load_after": round(os.getloadavg()[0], 1), "rank": RANK,
        "memory": memory, "layers": layers, "steps": steps,
    }  # fmt: skip
    asked.output.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
