"""Fused models under torch.compile and under DistributedDataParallel."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.kernels.peft.building import Attention, Model, adapted, assert_same, batch
from torch._dynamo.testing import CompileCounterWithBackend
from torch.multiprocessing.spawn import spawn

from tercet_kernels.peft import explain, fuse


def compiled(model: Model) -> tuple[int, dict[str, torch.Tensor]]:
    """Compile without graph breaks, run with batches of several sizes; return how often it compiled, and an answer."""
    torch._dynamo.reset()
    counter = CompileCounterWithBackend("aot_eager")
    run: Any = torch.compile(model, backend=counter, fullgraph=True)
    for rows in (2, 3, 5, 4):
        run(batch(rows)).sum().backward()
    return counter.frame_count, differentiated(model, run)


def differentiated(model: Model, run: Any) -> dict[str, torch.Tensor]:
    model.zero_grad()
    x = batch(6).requires_grad_()
    y = run(x)
    y.square().sum().backward()
    assert x.grad is not None
    grads = {name: value.grad for name, value in model.named_parameters() if value.grad is not None}
    return {"y": y.detach(), "x": x.grad} | {name: grad.clone() for name, grad in grads.items()}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own, while it compiles
@pytest.mark.parametrize("config", [{}, {"use_dora": True}, {"lora_dropout": 0.5}], ids=str)
def test_compile_breaks_no_graph_and_recompiles_no_more_than_peft(config: dict[str, Any]) -> None:
    model = adapted(Attention(24), targets=["q_proj", "k_proj", "v_proj"], r=4, **config)
    expected = differentiated(model, model)
    # PEFT's DoRA can't be traced in one piece: it looks into the weight's class
    count = 2 if "use_dora" in config else compiled(model)[0]
    fuse(model)
    ours, got = compiled(model)
    assert ours <= count
    if "lora_dropout" not in config:
        assert_same(got, expected, 1e-5)


def test_a_model_made_ready_for_a_hotswap_compiles_once_for_every_scaling() -> None:
    from peft.utils.hotswap import prepare_model_for_compiled_hotswap

    model, x = adapted(Attention(24), targets=["q_proj", "k_proj", "v_proj"], r=4), batch()
    fuse(model)
    prepare_model_for_compiled_hotswap(model, target_rank=6)
    torch._dynamo.reset()
    counter = CompileCounterWithBackend("aot_eager")
    run: Any = torch.compile(model, backend=counter, fullgraph=True)
    for scaling in (0.5, 3.0):
        for layer in {row.layer for row in explain(model)}:
            model.get_submodule(layer).scaling["default"].fill_(scaling)
        torch.testing.assert_close(run(x), model(x))
    assert counter.frame_count == 1


def work(rank: int, folder: str) -> None:
    """Train on one half of the batch; rank 0 writes the gradients."""
    import torch.distributed as dist
    from torch.nn.parallel import DistributedDataParallel

    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2, timeout=timedelta(seconds=60)
    )
    model = adapted(r=4)
    fuse(model)
    parallel = DistributedDataParallel(model)
    for _ in range(2):  # the second pass uses buckets built from the first's order
        model.zero_grad()
        parallel(batch(4)[2 * rank : 2 * rank + 2]).square().mean().backward()
    if rank == 0:
        grads = {name: value.grad for name, value in model.named_parameters() if value.grad is not None}
        save_file(grads, Path(folder, "grads.safetensors"))
    dist.barrier()  # a rank that leaves first may take the rendezvous file with it
    dist.destroy_process_group()


@pytest.mark.skipif(os.environ.get("TERCET_LONG") != "1", reason="two processes that import peft: 10 s and more")
def test_two_processes_average_pefts_gradients(tmp_path: Path) -> None:
    spawn(work, args=(str(tmp_path),), nprocs=2)
    model = adapted(r=4)
    model(batch(4)).square().mean().backward()
    grads = load_file(tmp_path / "grads.safetensors")
    assert len(grads) == 18
    for name, value in model.named_parameters():
        if name in grads:
            assert value.grad is not None
            torch.testing.assert_close(grads[name], value.grad, rtol=1e-4, atol=1e-6)


def test_a_replica_of_data_parallel_runs_in_peft_on_its_own_tensors() -> None:
    """A replica holds plain attributes where its parameters were; its siblings aren't the group's."""
    model, x = adapted(r=4), batch()
    layer = model.get_submodule("base_model.model.first.q_proj")
    fuse(model)
    expected = layer(x)
    replica = layer._replicate_for_data_parallel()
    for name in ("base_layer", "lora_A", "lora_B"):
        part = getattr(layer, name)
        replica._modules[name] = twin = part._replicate_for_data_parallel()
        holder, source = (twin, part) if name == "base_layer" else (None, part["default"])
        if holder is None:
            holder = twin._modules["default"] = source._replicate_for_data_parallel()
        for key, value in source._parameters.items():
            setattr(holder, key, None if value is None else value.detach() * 2)
    # twice the base and twice each factor: y = 2 x W^T + 2 bias + 4 of the adapter's share
    share = expected - layer.base_layer(x)
    torch.testing.assert_close(replica(x), 2 * layer.base_layer(x) + 4 * share, rtol=1e-4, atol=1e-5)
