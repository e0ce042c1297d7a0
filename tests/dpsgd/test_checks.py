"""What is demanded of a model, its optimizer and its schedule, before and while it trains."""

import copy

import pytest
import torch

from privkt.dpsgd import Keys, RefusedTraining
from privkt.dpsgd.checks import computes_in_half, need_order
from privkt.dpsgd.plan import HALF_PRECISION
from privkt.privacy import Budget


def _optimizer(model):
    return torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)


@pytest.mark.parametrize("last_step", [False, True])
def test_an_ordinary_step_beside_the_private_one_is_refused(dp, last_step):
    """It would put gradients without clipping or noise into the release."""
    model = dp.make("llama-lora")
    optimizer = _optimizer(model)
    training = dp.training(model, optimizer=optimizer)

    def once_more():
        for batch in training:
            training.step(training.causal_lm_losses(batch))
            if not last_step or training.steps_taken == len(training):
                dp.losses_of(model, batch).mean().backward()
                optimizer.step()
                optimizer.zero_grad()
        return training.finish()

    with pytest.raises(RefusedTraining, match="may move by the noisy update alone, got another write to 'base_model"):
        once_more()


class _Remembers(torch.nn.Module):
    """Keeps a batch in a buffer, where `state_dict` would find it: in a new one, or behind autograd's back."""

    def __init__(self, how):
        super().__init__()
        self.words, self.head, self.how = torch.nn.Embedding(61, 4), torch.nn.Linear(4, 61), how
        if how == "data":
            self.register_buffer("seen", torch.zeros(61))

    def forward(self, input_ids, attention_mask=None, use_cache=False):
        if self.how == "data":
            self.seen.data[input_ids] += 1
        elif not hasattr(self, "seen"):
            self.register_buffer("seen", input_ids.clone())
        return type("Output", (), {"logits": self.head(self.words(input_ids))})()


@pytest.mark.parametrize("how", ["data", "new"])
def test_a_buffer_that_remembers_records_is_refused(dp, how, tmp_path):
    training = dp.training(_Remembers(how))
    dp.run(training)
    with pytest.raises(RefusedTraining, match="got a write to 'seen'"):
        training.finish(tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_a_buffer_with_nan_is_no_write(dp, tmp_path):
    model = _Remembers("data")
    model.how = "never"
    model.seen.fill_(torch.nan)
    training = dp.training(model)
    dp.run(training)
    assert training.finish(tmp_path / "model").payload.folder == tmp_path / "model"


def test_shortened_float32_products_make_the_guarantee_conditional_or_are_refused(dp):
    """TF32 and its like round other records by 2^-11, which the slack of a float32 plan has no room for."""
    cpu = torch.device("cpu")
    exact, planned = dp.make("llama-lora"), dp.training()
    assert not computes_in_half(exact, cpu)
    assert HALF_PRECISION not in planned.plan.guarantee().conditional_on
    torch.set_float32_matmul_precision("medium")
    try:
        assert computes_in_half(exact, cpu)
        assert HALF_PRECISION in dp.training().plan.guarantee().conditional_on
        with pytest.raises(RefusedTraining, match="a plan made for float32 must be computed in float32"):
            dp.run(planned)
    finally:
        torch.set_float32_matmul_precision("highest")


def test_a_schedule_that_follows_a_metric_is_refused_and_nothing_is_spent(dp, ledger):
    model = dp.make("llama-lora")
    optimizer = _optimizer(model)
    plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer)
    with pytest.raises(RefusedTraining, match="learning rates must be fixed beforehand, got ReduceLROnPlateau"):
        dp.training(model, optimizer=optimizer, scheduler=plateau, budget=Budget(8.0, 1e-3, ledger=ledger))
    assert ledger.charges() == ()


@pytest.mark.parametrize("sampler", ["poisson", "balls-in-bins"])
def test_a_training_cannot_be_copied(dp, sampler):
    """Two copies would add the same noise to sums at other weights: their difference is what noise should hide."""
    with pytest.raises(RefusedTraining, match="got a copy of the training"):
        copy.deepcopy(dp.training(sampler=sampler, test_keys=Keys.for_tests(0)))


@pytest.mark.parametrize("reverse", [False, True])
def test_a_collate_fn_that_sorts_is_refused_and_nothing_is_spent(dp, ledger, reverse):
    """Three first records of one length pass the rehearsal; emptying another then moved the sum by 3.4 norms."""

    def by_length(rows):
        return dp.collate(sorted(rows, key=len, reverse=reverse))

    records = [[i + 1] * 8 for i in range(3)] + dp.records(57)
    settings = {"dataset": records, "verify": True, "budget": Budget(8.0, 1e-3, ledger=ledger)}
    with pytest.raises(RefusedTraining, match="collate_fn must keep the order of its records"):
        dp.run(dp.training(collate_fn=by_length, **settings))
    assert ledger.charges() == ()
    dp.run(dp.training(**settings))


@pytest.mark.parametrize("shuffled", [False, True])
def test_random_columns_and_those_between_places_are_no_other_order(shuffled):
    def collate(places):
        rows = torch.tensor(places)
        noise, among = torch.rand(len(places)), torch.ones(len(places), len(places)).tril()
        return {"rows": rows.sort().values if shuffled else rows, "some": (noise, [among, "text"]), "one": rows.sum()}

    if shuffled:
        with pytest.raises(RefusedTraining, match="collate_fn must keep the order"):
            need_order(collate, 60)
    else:
        need_order(collate, 60)
        need_order(collate, 1)
