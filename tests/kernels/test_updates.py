"""Noise, mean and optimizer in one pass: the bits of the reference, the steps of torch.optim, torch's own state."""

import copy
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import nn

from privkt.kernels import adamw_update_, native_updates, noisy_step_, noisy_sum, reference, sgd_update_
from privkt.kernels.optimizers import why_not

KEY = bytes(range(32))
KEY_TENSOR = torch.tensor(list(KEY), dtype=torch.uint8)
SIGMA, DIVISOR, OFFSET = 0.8, 24.0, 1021
SCALE = 2.0**20

OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.3),
    "sgd momentum": lambda p: torch.optim.SGD(p, lr=0.3, momentum=0.9, dampening=0.1, weight_decay=0.02),
    "sgd nesterov": lambda p: torch.optim.SGD(p, lr=0.3, momentum=0.9, nesterov=True, maximize=True),
    "adam": lambda p: torch.optim.Adam(p, lr=0.01, weight_decay=0.1, betas=(0.4, 0.99)),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=0.1),
    "adamw maximize": lambda p: torch.optim.AdamW(p, lr=0.01, maximize=True, eps=1e-3),
}


def vectors(count: int, seed: int, dtype: torch.dtype = torch.float32) -> list[torch.Tensor]:
    """A parameter, two states (the second positive) and a total."""
    generator = torch.Generator().manual_seed(seed)
    param, first, second, total = (torch.randn(count, generator=generator) for _ in range(4))
    return [param.to(dtype), first, second.abs(), total.double() * 3]


@settings(max_examples=40)
@given(
    st.sampled_from([torch.float32, torch.bfloat16]),
    st.sampled_from([0, 1, 5, 1023, 1025, 3000]),
    st.booleans(),
    st.booleans(),
    st.sampled_from([0.0, 0.9]),
    st.sampled_from([0.0, 0.1]),
    st.integers(0, 2000),
)
def test_sgd_has_the_bits_of_the_reference(dtype, count, nesterov, first, momentum, decay, offset) -> None:
    param, buffer, _, total = vectors(count, 1, dtype)
    mean = (total, SIGMA, KEY_TENSOR, 3, offset, None, DIVISOR, nesterov)
    how = (0.1, momentum, 0.7, decay, nesterov, first)
    expected = [param.clone(), buffer.clone() if momentum else None]
    got = [param.clone(), buffer.clone() if momentum else None]
    reference.sgd_update_(*expected, *mean, *how)
    native_updates.sgd_update_(*got, *mean, *how)
    assert all(torch.equal(a, b) for a, b in zip(got, expected, strict=True) if a is not None)


@settings(max_examples=40)
@given(
    st.sampled_from([torch.float32, torch.bfloat16]),
    st.sampled_from([0, 1, 5, 1023, 1025, 3000]),
    st.sampled_from([0.1, 0.7]),
    st.sampled_from([0.0, 0.1]),
    st.sampled_from([0.0, 0.3]),
    st.integers(0, 2000),
)
def test_adam_has_the_bits_of_the_reference(dtype, count, first_weight, decay, variance, offset) -> None:
    *weights, total = vectors(count, 2, dtype)
    mean = (total, SIGMA, KEY_TENSOR, 3, offset, None, DIVISOR, False)
    how = (0.02, first_weight, 0.99, 0.01, 0.4, 0.6, 1e-8, decay, 0.99, variance, 1e-6)
    expected, got = [x.clone() for x in weights], [x.clone() for x in weights]
    reference.adam_update_(*expected, *mean, *how)
    native_updates.adam_update_(*got, *mean, *how)
    assert all(torch.equal(a, b) for a, b in zip(got, expected, strict=True))


@pytest.mark.usefixtures("implementation")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.int64])
def test_the_gradient_is_the_noisy_mean_bit_by_bit(dtype: torch.dtype) -> None:
    """A weight of 0 and a rate of 1 leave the gradient, its sign turned; an int64 total is its units exactly."""
    total, scale = vectors(2500, 3)[3], None
    floats = total
    if dtype == torch.int64:
        total, scale = (total * SCALE).long(), SCALE
        floats = total.double() / SCALE
    else:
        total = floats = total.to(dtype)
    param = torch.zeros(2500)
    sgd_update_(param, None, total, SIGMA, KEY, 5, OFFSET, divisor=DIVISOR, lr=1.0, scale=scale)
    assert torch.equal(-param, noisy_sum(floats, SIGMA, KEY, 5, OFFSET) / DIVISOR)


@pytest.mark.usefixtures("implementation")
def test_slices_at_their_offset_are_slices_of_the_whole() -> None:
    whole, parts = vectors(3000, 4), vectors(3000, 4)
    settings = {"divisor": DIVISOR, "lr": 0.1, "count": 3, "noise_bias": 0.1}
    adamw_update_(*whole, SIGMA, KEY, 5, OFFSET, **settings)
    for start, stop in ((0, 1), (1, 1700), (1700, 3000)):
        adamw_update_(*(x[start:stop] for x in parts), SIGMA, KEY, 5, OFFSET + start, **settings)
    assert all(torch.equal(a, b) for a, b in zip(parts, whole, strict=True))


def test_threads_change_nothing() -> None:
    alone, together = vectors(200_001, 5), vectors(200_001, 5)
    threads = torch.get_num_threads()
    try:
        for count, tensors in ((1, alone), (3, together)):
            torch.set_num_threads(count)
            adamw_update_(*tensors, SIGMA, KEY, 5, 7, divisor=DIVISOR, lr=0.1, count=1)
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(a, b) for a, b in zip(alone, together, strict=True))


class Case:
    """Two parameters with a gap between their coordinates, and a total for each step."""

    def __init__(self, kind: str, dtype: torch.dtype = torch.float32) -> None:
        generator = torch.Generator().manual_seed(7)
        values = [torch.randn(shape, generator=generator).to(dtype) for shape in ((30, 7), (11,))]
        self.parameters = [nn.Parameter(v) for v in values]
        self.optimizer = OPTIMIZERS[kind](self.parameters)
        self.totals = [torch.randn(240, generator=generator).double() * 9 for _ in range(6)]
        self.places = list(zip(self.parameters, (4, 220), strict=True))

    def ours(self, number: int, **options) -> None:
        noisy_step_(self.optimizer, self.places, self.totals[number], SIGMA, KEY, number, divisor=DIVISOR, **options)

    def torchs(self, number: int, still: tuple[int, ...] = ()) -> None:
        gradient = noisy_sum(self.totals[number], SIGMA, KEY, number) / DIVISOR
        for parameter, start in self.places:
            parameter.grad = gradient[start : start + parameter.numel()].view_as(parameter).to(parameter.dtype)
        if still:
            self.parameters[0].grad[list(still)] = 0
        self.optimizer.step()
        self.optimizer.zero_grad()

    def values(self) -> torch.Tensor:
        return torch.cat([p.detach().flatten() for p in self.parameters])


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_steps_are_those_of_torch(kind: str) -> None:
    """Six steps: a few units in the last place each, where torch fuses what we round; a wrong term moves percents."""
    one, two = Case(kind), Case(kind)
    for number in range(6):
        one.ours(number, still={one.parameters[0]: [3, -1]})
        two.torchs(number, still=(3, -1))
    torch.testing.assert_close(one.values(), two.values(), rtol=3e-6, atol=1e-6)
    for p, q in zip(one.parameters, two.parameters, strict=True):
        mine, theirs = one.optimizer.state[p], two.optimizer.state[q]
        assert set(mine) == set(theirs)
        for name in mine:
            torch.testing.assert_close(mine[name], theirs[name], rtol=3e-6, atol=1e-6)


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_the_state_goes_to_torch_and_comes_back(kind: str) -> None:
    """Two steps here, two by a plain optimizer that loaded the state, two here again; against six of torch."""
    one, two, straight = Case(kind), Case(kind), Case(kind)
    for number in range(6):
        here, there = (one, two) if number // 2 != 1 else (two, one)
        if number in (2, 4):
            here.optimizer.load_state_dict(copy.deepcopy(there.optimizer.state_dict()))
            for p, q in zip(here.parameters, there.parameters, strict=True):
                p.data.copy_(q.data)
        (one.ours if here is one else two.torchs)(number)
        straight.torchs(number)
    torch.testing.assert_close(one.values(), straight.values(), rtol=3e-6, atol=1e-6)


def test_bfloat16_weights_are_float32_steps_rounded_once() -> None:
    half, full = Case("adamw", torch.bfloat16), Case("adamw")
    for p, q in zip(half.parameters, full.parameters, strict=True):
        q.data.copy_(p.data)
    for number in range(3):
        half.ours(number)
        full.ours(number)
        expected = full.values().bfloat16()
        assert half.values().dtype == torch.bfloat16
        assert torch.equal(half.values(), expected)
        for q, p in zip(full.parameters, half.parameters, strict=True):
            q.data.copy_(p.data)  # go on from the rounded weights
    assert half.optimizer.state[half.parameters[0]]["exp_avg"].dtype == torch.float32


def test_the_noise_is_taken_off_the_second_moment() -> None:
    param, exp_avg, exp_avg_sq, total = vectors(500, 8)
    before = [x.double().numpy() for x in (param, exp_avg, exp_avg_sq)]
    bias, floor = (SIGMA / DIVISOR) ** 2, 1e-2
    g = (noisy_sum(total, SIGMA, KEY, 0, 0) / DIVISOR).double().numpy()
    settings = {"divisor": DIVISOR, "lr": 0.1, "count": 4, "weight_decay": 0.3, "noise_bias": bias, "floor": floor}
    adamw_update_(param, exp_avg, exp_avg_sq, total, SIGMA, KEY, 0, **settings)
    m = 0.9 * before[1] + 0.1 * g
    v = 0.999 * before[2] + 0.001 * g * g
    root = np.sqrt(np.maximum(v / (1 - 0.999**4) - bias, floor))
    expected = before[0] * (1 - 0.1 * 0.3) - 0.1 * m / (1 - 0.9**4) / root
    assert (np.sqrt(floor) == root).any() or root.min() > np.sqrt(floor)
    np.testing.assert_allclose(param.numpy(), expected, rtol=2e-5, atol=1e-6)


def test_without_a_signal_the_corrected_second_moment_is_the_noise() -> None:
    """Mean over 200,000 coordinates, five steps; false-alarm rate 1e-6, variance 2 bias^2 sum w^2 a coordinate."""
    count, steps = 200_000, 5
    param, exp_avg, exp_avg_sq = (torch.zeros(count) for _ in range(3))
    for step in range(steps):
        total = torch.zeros(count, dtype=torch.float64)
        adamw_update_(param, exp_avg, exp_avg_sq, total, SIGMA, KEY, step, divisor=DIVISOR, lr=0.0, count=step + 1)
    bias = (SIGMA / DIVISOR) ** 2
    weights = 0.001 * 0.999 ** np.arange(steps) / (1 - 0.999**steps)
    deviation = bias * np.sqrt(2 * (weights**2).sum() / count)
    excess = exp_avg_sq.double().mean().item() / (1 - 0.999**steps) - bias
    assert abs(excess) < stats.norm.isf(5e-7) * deviation


def test_schedulers_see_the_step_and_other_parameters_stay() -> None:
    case = Case("adamw")
    case.places.pop()
    scheduler = torch.optim.lr_scheduler.LinearLR(case.optimizer)
    before = case.parameters[1].detach().clone()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        case.ours(0)
        scheduler.step()
    assert torch.equal(case.parameters[1], before)
    assert case.parameters[1] not in case.optimizer.state


def test_gradients_are_refused_and_a_graph_that_saved_the_weight_notices_the_step() -> None:
    weight, total = torch.ones(4, requires_grad=True), torch.zeros(4)
    with pytest.raises(RuntimeError, match=r"privkt\.sgd_update_: cannot be differentiated"):
        sgd_update_(weight, None, total, SIGMA, KEY, 0, divisor=1.0, lr=1.0)
    loss = (weight * weight).sum()
    with torch.no_grad():
        sgd_update_(weight.detach(), None, total, SIGMA, KEY, 0, divisor=1.0, lr=1.0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@pytest.mark.parametrize("implementation", ["native", "reference"], indirect=True)  # a GPU is not waited for
@pytest.mark.usefixtures("implementation")
def test_an_int64_total_that_overflowed_is_an_error() -> None:
    total = torch.tensor([1, 2**53 + 1])
    param = torch.zeros(2)
    with pytest.raises(
        OverflowError, match=r"sgd_update_: total must stay within 2\^53 cells, got a coordinate beyond"
    ):
        sgd_update_(param, None, total, SIGMA, KEY, 0, divisor=1.0, lr=1.0, scale=SCALE)
    assert param.isnan().tolist() == [False, True]


def hooked(optimizer):
    optimizer.register_step_post_hook(lambda *_: None)
    return optimizer


def patched(optimizer):
    optimizer.step = lambda: None
    return optimizer


def test_a_stretch_of_the_total_moves_its_own_parameters() -> None:
    whole, parts = Case("adamw"), Case("adamw")
    for number in range(2):
        whole.ours(number)
        for start, stop in ((0, 214), (214, 240)):
            inside = [place for place in parts.places if start <= place[1] < stop]
            total = parts.totals[number][start:stop]
            noisy_step_(parts.optimizer, inside, total, SIGMA, KEY, number, offset=start, divisor=DIVISOR)
    assert torch.equal(whole.values(), parts.values())


def test_settings_of_torchs_own_implementations_do_not_matter() -> None:
    plain, other = Case("adamw"), Case("adamw")
    other.optimizer.param_groups[0].update(fused=True, foreach=False)
    for number in range(2):
        plain.ours(number)
        other.ours(number)
    assert torch.equal(plain.values(), other.values())
    other.torchs(2)  # and torch's own step finds the state it expects


@pytest.mark.parametrize(
    ("optimizer", "reason"),
    [
        (lambda p: torch.optim.RMSprop(p), "the optimizer must be torch's SGD, Adam or AdamW itself, got RMSprop"),
        (lambda p: torch.optim.Adam(p, amsgrad=True), "the optimizer's amsgrad must be off, got True"),
        (lambda p: torch.optim.Adam(p, capturable=True), "the optimizer's capturable must be off, got True"),
        (lambda p: hooked(torch.optim.SGD(p)), "the optimizer must have no step hooks, got one"),
        (lambda p: patched(torch.optim.SGD(p)), "the optimizer's step must be its class's own, got another"),
    ],
)
def test_other_optimizers_are_refused(optimizer, reason: str) -> None:
    made = optimizer([nn.Parameter(torch.zeros(2))])
    assert why_not(made) == reason
    with pytest.raises(ValueError, match=r"call optimizer\.step\(\)"):
        noisy_step_(made, [], torch.zeros(2), SIGMA, KEY, 0, divisor=1.0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda case: noisy_step_(
                case.optimizer,
                [(case.parameters[0], 0), (case.parameters[1], 209)],
                case.totals[0],
                1.0,
                KEY,
                0,
                divisor=1,
            ),
            "noisy_step_: places must lie apart within the 240 coordinates of the total, got one of 11 at 209; "
            "no coordinate's noise may serve twice",
        ),
        (
            lambda case: sgd_update_(torch.zeros(2), None, torch.zeros(3), 1.0, KEY, 0, divisor=1.0, lr=0.1),
            "sgd_update_: total must have shape [2], got [3]; reshape it before the call",
        ),
        (
            lambda case: sgd_update_(torch.zeros(2), None, torch.zeros(2), 1.0, KEY, 0, divisor=0.0, lr=0.1),
            "sgd_update_: divisor must be positive and finite, got 0.0; pass the public batch size q N",
        ),
        (
            lambda case: sgd_update_(
                torch.zeros(2),
                torch.zeros(2).bfloat16(),
                torch.zeros(2),
                1.0,
                KEY,
                0,
                divisor=1.0,
                lr=1.0,
                momentum=0.9,
            ),
            "sgd_update_: momentum_buffer must be float32, got bfloat16; convert it before the call",
        ),
        (
            lambda case: sgd_update_(
                torch.zeros(2), None, torch.zeros(2), 1.0, KEY, 0, divisor=1.0, lr=1.0, momentum=0.9
            ),
            "sgd_update_: momentum_buffer must come with a momentum other than 0, got none; pass zeros and first=True",
        ),
        (
            lambda case: adamw_update_(*(torch.zeros(2) for _ in range(4)), 1.0, KEY, 0, divisor=1.0, lr=1.0, count=0),
            "adamw_update_: count must be the number of this step, from 1 on, got 0; count from 1",
        ),
    ],
)
def test_wrong_arguments_say_what_came_and_what_to_do(call, message: str) -> None:
    with pytest.raises((TypeError, ValueError)) as caught:
        call(Case("adamw"))
    assert str(caught.value) == message
