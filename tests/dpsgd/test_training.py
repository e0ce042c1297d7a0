"""The whole loop: what it demands, what it charges, what it does in each step, what it refuses to do."""

import warnings

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, RandomSampler

from privkt.contracts.messages import Adapter
from privkt.dpsgd import RefusedTraining, TrainingError
from privkt.dpsgd.training import PrivateTraining
from privkt.privacy import Budget, BudgetExceeded, InvalidBudget, Kind, Ledger


class Watched(torch.optim.SGD):
    """SGD that notes the gradients it is given and what the ledger held at that moment."""

    def __init__(self, parameters, ledger=None):
        super().__init__(parameters, lr=0.1)
        self.seen, self.charged, self.ledger = [], [], ledger

    def step(self, closure=None):
        self.seen.append(torch.cat([p.grad.flatten() for group in self.param_groups for p in group["params"]]))
        if self.ledger is not None:
            self.charged.append(len(self.ledger.charges()))
        return super().step()


def _watched(dp, model, ledger=None):
    return Watched([p for p in model.parameters() if p.requires_grad], ledger)


def test_it_trains_for_the_planned_steps_and_gives_a_release(dp):
    model = dp.make("llama-lora")
    before = dp.weights(model)
    training = dp.training(model, verify=True)
    dp.run(training)
    assert training.steps_taken == training.plan.steps == len(training) == 3
    release = training.finish()
    assert isinstance(release.payload, Adapter)
    assert release.guarantee == training.plan.guarantee()
    assert release.event == training.plan.event()
    assert release.provenance.data_set_id == "d" * 32
    assert release.provenance.details["noise_multiplier"] == training.plan.noise_multiplier
    assert not torch.equal(before, dp.weights(model))
    assert training.finish() is release


def test_training_is_charged_before_the_first_step(dp, ledger):
    model = dp.make("llama-lora")
    optimizer = _watched(dp, model, ledger)
    training = dp.training(model, optimizer=optimizer, budget=Budget(8.0, 1e-3, ledger=ledger), verify=True)
    assert len(ledger.charges()) == 0
    dp.run(training)
    release = training.finish()
    assert optimizer.charged == [1, 1, 1]
    (charge,) = ledger.charges()
    assert release.charge == charge.id
    assert charge.planned == training.plan.guarantee()
    assert ledger.events() == [training.plan.event()]
    assert ledger.status(charge.id).taken == 3


def test_without_a_ledger_the_release_has_no_charge(dp):
    training = dp.training()
    dp.run(training)
    assert training.finish().charge is None


def test_a_budget_that_is_exceeded_stops_before_the_first_step(dp, ledger):
    model = dp.make("llama-lora")
    optimizer = _watched(dp, model)
    training = dp.training(model, optimizer=optimizer, budget=Budget(9.0, 1e-3, ledger=ledger))
    with pytest.raises(BudgetExceeded):
        dp.run(training)
    assert optimizer.seen == []
    assert ledger.charges() == ()


def test_the_gradient_is_the_noisy_clipped_sum_over_the_public_divisor(dp):
    """Every step's gradient, rebuilt from the draw, a loop over samples, and the noise of the same key."""
    from privkt import kernels

    model, keys = dp.make("llama-lora"), dp.keys(4)
    optimizer = _watched(dp, model)
    training = dp.training(model, optimizer=optimizer, test_keys=keys, max_grad_norm=0.3)
    plan, records = training.plan, dp.records()
    for step in range(plan.steps):
        drawn = training._sampler.draw(step)
        rows = dp.loop(model, [records[i] for i in drawn])
        clipped = rows * (0.3 / rows.norm(dim=1, keepdim=True)).clamp(max=1)
        noise = torch.empty(plan.coordinates)
        kernels.gaussian_noise(noise, plan.noise_deviation, keys.noise, step=step)
        expected = (clipped.sum(0) + noise) / 12
        dp.run(training, stop_after=step + 1)
        got = optimizer.seen[step]
        assert float((got - expected).norm() / expected.norm()) < 1e-5


def test_an_empty_draw_adds_noise_and_steps(dp, monkeypatch):
    model = dp.make("llama-lora")
    optimizer = _watched(dp, model)
    training = dp.training(model, optimizer=optimizer)
    monkeypatch.setattr(training._sampler, "draw", lambda step: np.arange(0))
    batches = 0
    for batch in training:
        batches += 1
        assert batch["input_ids"].shape[0] == 4
        training.step(training.causal_lm_losses(batch))
    assert batches == training.steps_taken == 3
    scale = training.plan.noise_deviation / 12
    for gradient in optimizer.seen:
        # 768 values: the sample deviation leaves [0.8, 1.25] with probability below 1e-6
        assert 0.8 * scale < float(gradient.std()) < 1.25 * scale


def test_every_microbatch_has_the_same_shape_and_the_last_one_steps(dp, monkeypatch):
    training = dp.training()
    monkeypatch.setattr(training._sampler, "draw", lambda step: np.arange(10))
    done = []
    for batch in training:
        assert batch["input_ids"].shape[0] == 4
        training.step(training.causal_lm_losses(batch))
        done.append(training.steps_taken)
    assert done == [0, 0, 1, 1, 1, 2, 2, 2, 3]


def test_a_sample_that_is_not_finite_is_left_out(dp, monkeypatch):
    model = dp.make("llama-lora")
    training = dp.training(model, steps=1)
    monkeypatch.setattr(training._sampler, "draw", lambda step: np.arange(4))
    for batch in training:
        losses = training.causal_lm_losses(batch)
        training.step(losses * torch.tensor([1.0, float("nan"), 1.0, float("inf")]))
    assert bool(dp.weights(model).isfinite().all())


@pytest.mark.parametrize("kind", [torch.optim.AdamW, torch.optim.Adagrad, torch.optim.RMSprop])
def test_any_optimizer_and_scheduler_works(dp, kind):
    model = dp.make("llama-lora")
    optimizer = kind([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    scheduler = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.1, total_iters=3)
    dp.run(dp.training(model, optimizer=optimizer, scheduler=scheduler))
    assert scheduler.last_epoch == 3


def test_a_warmup_from_zero_is_not_taken_for_weights_that_never_move(dp):
    model = dp.make("llama-lora")
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: step / 3)
    before = dp.weights(model)
    dp.run(dp.training(model, optimizer=optimizer, scheduler=scheduler))
    assert not torch.equal(before, dp.weights(model))


def test_weights_that_do_not_move_are_found_after_the_first_step(dp):
    model = dp.make("llama-lora")
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1e-30)
    with pytest.raises(TrainingError, match="first step must move"):
        dp.run(dp.training(model, optimizer=optimizer))


def test_an_optimizer_made_before_the_adapter_is_refused(dp):
    model = dp.make("llama-lora")
    other = dp.make("llama-lora")
    stale = torch.optim.SGD([p for p in other.parameters() if p.requires_grad], lr=0.1)
    with pytest.raises(RefusedTraining, match="optimizer must hold every trainable parameter"):
        dp.training(model, optimizer=stale)


def test_an_optimizer_with_a_past_is_refused(dp):
    model = dp.make("llama-lora")
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=0.1)
    dp.losses_of(model, dp.collate(dp.records(2))).sum().backward()
    optimizer.step()
    with pytest.raises(RefusedTraining, match="optimizer must be new"):
        dp.training(model, optimizer=optimizer)


def test_a_frozen_parameter_with_an_old_gradient_does_not_move(dp):
    model = dp.make("llama-lora")
    frozen = model.base_model.model.lm_head.weight
    frozen.grad = torch.ones_like(frozen)
    before = frozen.detach().clone()
    dp.run(dp.training(model, optimizer=torch.optim.SGD(model.parameters(), lr=0.1)))
    assert torch.equal(frozen, before)


class Counting(torch.nn.Module):
    """Adds up what it sees, where `state_dict` would find it."""

    def __init__(self, keeps):
        super().__init__()
        self.words, self.head, self.keeps = torch.nn.Embedding(61, 4, padding_idx=0), torch.nn.Linear(4, 61), keeps
        self.register_buffer("seen", torch.zeros(61))

    def forward(self, input_ids, attention_mask=None, use_cache=False):
        if self.keeps:
            self.seen[input_ids] += 1
        return type("Output", (), {"logits": self.head(self.words(input_ids))})()


def test_a_layer_that_keeps_statistics_is_refused(dp, tmp_path):
    training = dp.training(Counting(keeps=True))
    dp.run(training)
    with pytest.raises(RefusedTraining, match="got a write to 'seen'"):
        training.finish(tmp_path / "model")
    training = dp.training(Counting(keeps=False))
    dp.run(training)
    assert training.finish(tmp_path / "model").payload.folder == tmp_path / "model"


def test_padding_vectors_are_not_trained_by_noise(dp):
    model = Counting(keeps=False)
    before = model.words.weight.detach().clone()
    dp.run(dp.training(model))
    assert torch.equal(model.words.weight[0], before[0])
    assert not torch.equal(model.words.weight[1], before[1])


def test_a_scalar_loss_is_refused_with_the_fix_and_nothing_spent(dp, ledger):
    training = dp.training(budget=Budget(8.0, 1e-3, ledger=ledger))
    with pytest.raises(RefusedTraining, match=r"got a scalar; use training.causal_lm_losses"):
        dp.run(training, change=torch.mean)
    assert ledger.charges() == ()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda losses: losses[:-1], "must have the 4 samples of this microbatch.*got 3"),
        (lambda losses: losses.unsqueeze(1), r"got a tensor of shape \(4, 1\)"),
        (lambda losses: losses.tolist(), "got list"),
        (lambda losses: losses.detach(), "without a graph"),
    ],
)
def test_losses_of_another_form_are_refused(dp, change, message):
    training = dp.training()
    with pytest.raises(RefusedTraining, match=message):
        dp.run(training, change=change)


def test_a_skipped_batch_is_an_error(dp):
    training = dp.training()
    with pytest.raises(TrainingError, match="every batch must be given to step"):
        for _ in training:
            pass


def test_a_second_step_on_one_batch_is_an_error(dp):
    training = dp.training()
    with pytest.raises(TrainingError, match="call without a new batch"):
        dp.run(training, times=2)


def test_finish_before_the_last_step_is_refused(dp):
    training = dp.training()
    dp.run(training, stop_after=1)
    with pytest.raises(TrainingError, match="all 3 planned steps must be done, got 1"):
        training.finish()


def test_a_loop_that_was_left_can_go_on(dp, monkeypatch):
    training = dp.training()
    monkeypatch.setattr(training._sampler, "draw", lambda step: np.arange(10))
    for batch in training:
        training.step(training.causal_lm_losses(batch))
        break
    assert training.steps_taken == 0
    dp.run(training)
    assert training.steps_taken == 3


def test_a_step_that_failed_half_way_is_not_repeated(dp):
    class Failing(torch.optim.SGD):
        def step(self, closure=None):
            raise MemoryError

    model = dp.make("llama-lora")
    optimizer = Failing([p for p in model.parameters() if p.requires_grad], lr=0.1)
    training = dp.training(model, optimizer=optimizer)
    with pytest.raises(MemoryError):
        dp.run(training)
    with pytest.raises(TrainingError, match="failed half-way"):
        dp.run(training)


def test_a_shuffled_loader_with_a_poisson_epsilon_cannot_be_constructed(dp):
    records = dp.records()
    loader = DataLoader(records, batch_size=12, shuffle=True, collate_fn=dp.collate)
    for wrong in (loader, RandomSampler(records), loader.batch_sampler, iter(records)):
        with pytest.raises(RefusedTraining, match=r"must draw the records itself|must have len\(\) and \[i\]"):
            dp.training(dataset=wrong, size=60)
    for name in ("batch_sampler", "shuffle"):
        with pytest.raises(TypeError, match=name):
            dp.training(**{name: None})
    for wrong in (None, "shuffle", RandomSampler(records), loader.batch_sampler):
        with pytest.raises(RefusedTraining, match="sampler must be one of poisson, truncated-poisson"):
            dp.training(sampler=wrong)
    assert dp.training(dataset=records).plan.sampler == "poisson"


BAD = {
    "no records": ({"dataset": [], "size": 60}, RefusedTraining, "must hold records"),
    "declared N": ({"size": 61}, RefusedTraining, "got 61 declared and another number"),
    "batch": ({"batch_size": 61}, RefusedTraining, "between 1 and N = 60, got 61"),
    "delta": ({"budget": Budget(8.0, 0.1)}, InvalidBudget, "below 1/N"),
    "microbatch": ({"microbatch_size": 0}, RefusedTraining, "at least 1, got 0"),
    "memory": (
        {"row_memory": 100, "users": [[i] for i in range(60)], "records_per_user": 8},
        RefusedTraining,
        "must fit into row_memory = 100 bytes",
    ),
    "norm": ({"max_grad_norm": -1.0}, RefusedTraining, "max_grad_norm must be finite and > 0"),
    "steps": ({"steps": 0}, RefusedTraining, "at least one step"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_refused_before_anything_is_spent(dp, ledger, name):
    changes, error, message = BAD[name]
    budget = changes.get("budget", Budget(8.0, 1e-3))
    budget = Budget(budget.epsilon, budget.delta, ledger=ledger)
    with pytest.raises(error, match=message):
        dp.training(**{**changes, "budget": budget})
    assert ledger.charges() == ()
    assert isinstance(dp.training(budget=Budget(8.0, 1e-3, ledger=ledger)), PrivateTraining)  # the valid twin


def test_known_keys_give_no_guarantee_and_no_charge(dp, ledger):
    training = dp.training(test_keys=dp.keys())
    dp.run(training)
    release = training.finish()
    assert release.guarantee.kind is Kind.NONE
    assert release.charge is None
    with pytest.raises(RefusedTraining, match="must be spent on a private run"):
        dp.training(test_keys=dp.keys(), budget=Budget(8.0, 1e-3, ledger=ledger))


def test_reference_kernels_give_no_guarantee(dp, ledger, monkeypatch):
    monkeypatch.setenv("PRIVKT_KERNELS", "reference")
    training = dp.training(steps=1)
    dp.run(training)
    assert training.finish().guarantee.kind is Kind.NONE
    with pytest.raises(RefusedTraining, match="PRIVKT_KERNELS"):
        dp.training(budget=Budget(8.0, 1e-3, ledger=ledger))


def test_two_trainings_draw_other_records_and_other_noise(dp):
    gradients = []
    for _ in range(2):
        model = dp.make("llama-lora")
        optimizer = _watched(dp, model)
        dp.run(dp.training(model, optimizer=optimizer, steps=1))
        gradients.append(optimizer.seen[0])
    assert not torch.equal(*gradients)


def test_a_test_key_repeats_a_training(dp):
    results = []
    for _ in range(2):
        model = dp.make("llama-lora")
        dp.run(dp.training(model, test_keys=dp.keys(2)))
        results.append(dp.weights(model))
    assert torch.equal(*results)


def test_progress_shows_steps_and_never_a_batch_size(dp):
    class Shown:
        def __init__(self):
            self.calls = []

        def task(self, title, total, unit=""):
            self.calls.append((title, total, unit))
            return self

        def advance(self, amount=1, note=""):
            self.calls.append((amount, note))

    shown = Shown()
    dp.run(dp.training(progress=shown))
    said = [call for call in shown.calls if str(call[0]).startswith("memory: about ")]
    steps = [(1, "")] * 3
    assert shown.calls == [("private training", 3, "step"), (0, ""), (said[0][0], 1, "plan"), (1, ""), *steps]


def test_a_record_is_in_no_error_and_no_warning(dp, tmp_path, monkeypatch):
    canary = "Canary-4711"
    ledger = Ledger.open_or_create("c", cap_epsilon=8.0, cap_delta=1e-3, size=60, state=tmp_path)

    class Record(list):
        def __repr__(self):
            return canary

    records = [Record(row) for row in dp.records()]
    said = []
    with warnings.catch_warnings(record=True) as caught:
        for wrong in ({"size": 61}, {"batch_size": 99}, {"dataset": iter(records)}, {"max_grad_norm": 0.0}):
            with pytest.raises(RefusedTraining) as error:
                dp.training(**{"dataset": records, "budget": Budget(8.0, 1e-3, ledger=ledger), **wrong})
            said.append(str(error.value))
        training = dp.training(dataset=records, steps=1)
        with pytest.raises(RefusedTraining) as error:
            dp.run(training, change=torch.sum)
        said += [str(error.value), *(str(w.message) for w in caught)]
    assert canary not in " ".join(said)


def test_dropout_draws_from_a_seed_that_nobody_knows_and_leaves_the_callers_as_it_was(dp):
    """With a known seed, one record more or less gives all others of its batch other masks that anybody can compute."""
    torch.manual_seed(0)
    before, seeds = torch.get_rng_state(), []
    for _ in range(2):
        training = dp.training(dp.make("llama-lora-dropout"))
        torch.manual_seed(0)
        for batch in training:
            seeds.append(torch.initial_seed())
            training.step(training.causal_lm_losses(batch))
    assert 0 not in seeds
    assert len(set(seeds)) == 2
    assert torch.equal(torch.get_rng_state(), before)


def test_many_runs_fit_into_a_ledger_that_adds_divergences(dp, tmp_path):
    """The sampler's slack of a run is what its sampler takes: the share that plans reserve would end it after ten."""
    ledger = Ledger.open_or_create(
        "many", cap_epsilon=40.0, cap_delta=1e-3, size=60, filter="zcdp", state=tmp_path / "state"
    )
    for number in range(12):
        training = dp.training(budget=Budget(0.5, 1e-3, ledger=ledger), run_id=f"run {number}", steps=1)
        dp.run(training)
    assert len(ledger.charges()) == 12
    slacks = [entry.body["slack_delta"] for entry in ledger.entries() if entry.kind == "charge"]
    assert all(0 < slack < 1e-12 for slack in slacks)


def test_a_second_loop_is_refused_while_the_first_runs(dp):
    """Interleaved, pieces of one draw would be added to another's sum."""
    training = dp.training()
    first = iter(training)
    batch = next(first)
    with pytest.raises(TrainingError, match="one loop may run at a time"):
        next(iter(training))
    training.step(training.causal_lm_losses(batch))  # the first is untouched
    first.close()
    dp.run(training)
    assert training.steps_taken == 3
