"""Each rule against its layer's ordinary gradient, one sample at a time."""

import pytest
import torch
from torch import nn
from transformers.models.gemma.modeling_gemma import GemmaRMSNorm
from transformers.models.llama.modeling_llama import LlamaRMSNorm
from transformers.pytorch_utils import Conv1D

from privkt.dpsgd import RefusedTraining, rule_for
from privkt.dpsgd.engine import Engine
from privkt.dpsgd.layers import RMSNormRule


def _compare(module, x, tolerance=1e-6):
    module = module.double()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    samples = x.shape[0]
    engine = Engine(module)
    with engine.microbatch(samples):
        output = module(x)
        factor = torch.randn_like(output)
        got = engine.rows((output * factor).flatten(1).sum(1), torch.ones(samples, dtype=torch.bool)).clone()
    parameters = list(module.parameters())
    for i in range(samples):
        grads = torch.autograd.grad((module(x[i : i + 1]) * factor[i : i + 1]).sum(), parameters)
        expected = torch.cat([g.flatten() for g in grads])
        assert float((got[i] - expected).norm()) <= tolerance * float(expected.norm())


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(5)


@pytest.mark.parametrize("shape", [(3,), (3, 5), (3, 2, 5), (1, 5)])
@pytest.mark.parametrize("bias", [True, False])
def test_linear(shape, bias):
    _compare(nn.Linear(6, 7, bias=bias), torch.randn(*shape, 6, dtype=torch.float64))


@pytest.mark.parametrize("shape", [(3,), (3, 5)])
def test_conv1d(shape):
    _compare(Conv1D(7, 6), torch.randn(*shape, 6, dtype=torch.float64))


@pytest.mark.parametrize("padding", [None, 2])
def test_embedding_adds_repeated_ids_and_leaves_padding_out(padding):
    _compare(nn.Embedding(5, 4, padding_idx=padding), torch.tensor([[1, 1, 2, 4], [2, 2, 0, 3], [4, 4, 4, 4]]))


def test_embedding_of_one_id_a_sample():
    _compare(nn.Embedding(5, 4), torch.tensor([1, 3, 3]))


@pytest.mark.parametrize("shape", [(3,), (3, 5), (3, 2, 5)])
def test_layer_norm(shape):
    _compare(nn.LayerNorm(6), torch.randn(*shape, 6, dtype=torch.float64))


def test_layer_norm_over_two_dimensions_and_without_bias():
    _compare(nn.LayerNorm((4, 6)), torch.randn(3, 5, 4, 6, dtype=torch.float64))
    _compare(nn.LayerNorm(6, bias=False), torch.randn(3, 5, 6, dtype=torch.float64))


@pytest.mark.parametrize("shape", [(3,), (3, 5), (3, 2, 5)])
@pytest.mark.parametrize("kind", [LlamaRMSNorm, GemmaRMSNorm, nn.RMSNorm])
def test_rms_norm(kind, shape):
    _compare(kind(6), torch.randn(*shape, 6, dtype=torch.float64))


def test_something_that_is_only_called_a_norm_has_no_rule():
    class ShiftedNorm(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(6))
            self.eps = 1e-6

        def forward(self, x):
            return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps) * self.weight**2

    assert rule_for(ShiftedNorm()) is None
    assert isinstance(rule_for(LlamaRMSNorm(6)), RMSNormRule)


def test_a_subclass_with_another_forward_has_no_rule():
    class Doubled(nn.Linear):
        def forward(self, x):
            return 2 * super().forward(x)

    assert rule_for(Doubled(3, 3)) is None
    assert rule_for(nn.Linear(3, 3)) is not None


def test_position_ids_of_batch_one_are_expanded():
    class Positioned(nn.Module):
        def __init__(self):
            super().__init__()
            self.words, self.positions = nn.Embedding(9, 4), nn.Embedding(8, 4)

        def forward(self, ids):
            return (self.words(ids) + self.positions(torch.arange(ids.shape[1]).unsqueeze(0))).pow(3)

    _compare(Positioned(), torch.tensor([[1, 2, 3], [4, 4, 4], [0, 8, 1]]))


def test_an_embedding_that_rescales_its_rows_is_refused():
    module = nn.Embedding(5, 4, max_norm=1.0)
    with Engine(module).microbatch(2), pytest.raises(RefusedTraining, match="max_norm"):
        module(torch.tensor([[1], [2]]))
