"""What is made on a GPU is what is made on a CPU, and nothing is stored that need not be.

Without a GPU the threads of its kernels are played on the CPU (tests/kernels/test_blocks.py says what that is).
"""

import copy

import pytest
import torch

from privkt import kernels
from privkt.dpsgd.engine import Engine
from privkt.kernels import native

needs_a_gpu = pytest.mark.skipif(
    not (kernels.build_info()["cuda"] and torch.cuda.is_available()), reason="needs a build with CUDA and a GPU"
)


def _gradients(dp, model, batch):
    engine = Engine(model)
    with engine.microbatch(4):
        losses = dp.losses_of(model, batch)
        return engine.backward(losses, losses.new_ones(4).bool(), force="kept")


def _sums(gradients, factors):
    total = torch.zeros(gradients.width, dtype=torch.float64, device=factors.device)
    gradients.add_clipped(total, factors)
    cells = torch.zeros(gradients.width, dtype=torch.int64, device=factors.device)
    gradients.add_clipped(cells, factors, scale=2.0**30)
    return total.cpu(), cells.cpu()


@pytest.mark.parametrize("name", ["llama", "llama-tied", "gpt2-tied", "bert"])
def test_the_blocks_of_a_gpu_give_the_sums_of_the_cpu(dp, name, monkeypatch):
    gradients, factors = (
        _gradients(dp, dp.make(name), dp.collate(dp.records(4))),
        torch.tensor([[0.1], [1], [0], [0.7]]),
    )
    norms, sums = gradients.sqnorms(), _sums(gradients, factors)
    played = []

    def in_blocks(kernel, device):
        has = hasattr(native.module(), kernel + "_blocks")
        played.append(kernel) if has else None
        return "blocks" if has else None

    monkeypatch.setattr(native, "in_blocks", in_blocks)
    torch.testing.assert_close(gradients.sqnorms(), norms, rtol=1e-9, atol=0)
    assert all(torch.equal(a, b) for a, b in zip(_sums(gradients, factors), sums, strict=True))
    assert {"product_sqnorms", "clipped_product_sum", "embedding_sqnorms", "clipped_embedding_sum"} <= set(played)


@needs_a_gpu
@pytest.mark.parametrize("name", ["llama-lora", "llama", "llama-tied", "gpt2-tied", "bert"])
def test_a_gpu_keeps_what_a_cpu_keeps(dp, name):
    batch, factors = dp.collate(dp.records(4)), torch.tensor([[0.1], [1], [0], [0.7]])
    here = _gradients(dp, dp.make(name), batch)
    there = _gradients(dp, dp.make(name).cuda(), {key: value.cuda() for key, value in batch.items()})
    assert there.modes == here.modes
    torch.testing.assert_close(there.sqnorms().cpu(), here.sqnorms(), rtol=1e-3, atol=0)
    wanted, found = _sums(here, factors)[0], _sums(there, factors.cuda())[0]
    assert float((found - wanted).norm() / wanted.norm()) <= 1e-4


@needs_a_gpu
def test_clipping_and_noise_wait_for_nothing(dp):
    gradients = _gradients(
        dp, dp.make("llama-tied").cuda(), {k: v.cuda() for k, v in dp.collate(dp.records(4)).items()}
    )
    total = torch.zeros(gradients.width, dtype=torch.float64, device="cuda")

    def step():
        factors, _ = kernels.clip_factors(gradients.sqnorms()[:, 0].contiguous(), 1.0, width=gradients.width)
        gradients.add_clipped(total, factors[:, None])
        return kernels.noisy_sum(total, 0.5, bytes(32), 0)

    step()
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        found = step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert found.isfinite().all()


@needs_a_gpu
@pytest.mark.parametrize("name", ["llama-lora", "llama-tied"])
def test_a_training_runs_on_a_gpu(dp, name):
    def collate(rows):
        return {key: value.cuda() for key, value in dp.collate(rows).items()}

    model = dp.make(name)
    found = []
    for device in ("cpu", "cuda"):
        mine = copy.deepcopy(model).to(device)
        settings = {} if device == "cpu" else {"collate_fn": collate}
        dp.run(dp.training(mine, test_keys=dp.keys(), **settings))
        found.append(dp.weights(mine).cpu())
    moved = found[0] - dp.weights(model)
    assert float((found[1] - found[0]).norm() / moved.norm()) <= 1e-3  # the same noise, other roundings of the model
