"""Private training of any transformers or PEFT model with a loop that looks like an ordinary one."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from privkt import __version__, kernels
from privkt.contracts.messages import Adapter, Model, SoftPrompt
from privkt.contracts.progress import NoProgress, Progress
from privkt.dpsgd import checkpoint as checkpoints
from privkt.dpsgd import losses as per_sample
from privkt.dpsgd.checks import Untouched, need_data_set, need_losses, need_one_process, need_optimizer, samples_at_once
from privkt.dpsgd.engine import Engine
from privkt.dpsgd.errors import RefusedTraining, TrainingError
from privkt.dpsgd.export import payload
from privkt.dpsgd.mechanism import NoisyMean
from privkt.dpsgd.plan import Plan, make_plan, sampler_slack, steps_of
from privkt.dpsgd.sampling import Keys, PoissonSampler, layer_randomness, microbatches
from privkt.dpsgd.verify import Rehearsal, undisturbed
from privkt.privacy import Budget, ChargeConflict, Guarantee, Provenance, Release, accounting

MECHANISM = "privkt:dp-sgd"


@dataclass(frozen=True)
class _Current:
    """The microbatch the loop body works on."""

    mask: Tensor
    last: bool
    rehearsal: Rehearsal | None = None


class PrivateTraining:
    """DP-SGD with Poisson sampling and exact flat per-sample clipping.

        training = PrivateTraining(model, optimizer, records, collate_fn=collate, budget=budget, size=2000, epochs=3,
                                   batch_size=256, run_id=run, purpose="generator", ...)
        for batch in training:                                  # one microbatch; the last of a logical batch steps
            training.step(training.causal_lm_losses(batch))     # or any [B] tensor of per-sample losses
        release = training.finish()

    The first few batches are a rehearsal that never counts (`verify`); the loop body need not know.

    Guarantee: `plan.guarantee()`, charged to the budget's ledger before the first step. Without a ledger nothing is
        charged, the release has no charge, and the gate refuses it. With `test_keys`, or under
        PRIVKT_KERNELS=reference, the guarantee is none.
    Edge cases: an empty draw still adds noise and steps; a draw larger than a microbatch is several batches; padding
        rows of a batch are masked; samples whose gradient is not finite are left out.
    Raises: RefusedTraining (nothing spent), CheckpointError, TrainingError.
    References: Abadi et al. 2016, Algorithm 1; Kairouz et al. 2021 (zero-out, fixed divisor).
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        dataset: Any,
        *,
        collate_fn: Callable[[list[Any]], Any],
        budget: Budget,
        size: int,
        batch_size: int,
        epochs: float | None = None,
        steps: int | None = None,
        microbatch_size: int | Literal["auto"] = "auto",
        max_grad_norm: float = 1.0,
        run_id: str,
        purpose: str,
        fingerprint: str,
        data_set_id: str,
        data_changed: bool = False,
        checkpoint: Path | None = None,
        checkpoint_every: int | None = None,
        scheduler: Any = None,
        model_name: str | None = None,
        row_memory: int = 2**31,
        verify: bool = True,
        progress: Progress | None = None,
        test_keys: Keys | None = None,
    ) -> None:
        need_one_process()
        need_data_set(dataset, size)
        self.model, self.optimizer, self.scheduler = model, optimizer, scheduler
        self._dataset, self._collate_fn = dataset, collate_fn
        self._engine = Engine(model)
        need_optimizer(optimizer, self._engine.layout)
        at_once = samples_at_once(microbatch_size, self._engine.width, batch_size, row_memory)
        self._plan = make_plan(
            budget,
            size=size,
            batch_size=batch_size,
            steps=steps_of(size, batch_size, epochs, steps),
            max_grad_norm=max_grad_norm,
            microbatch_size=at_once,
            coordinates=self._engine.width,
            variation_per_coordinate=kernels.gaussian_tv_per_coordinate(),
            half_precision=self._engine.half_precision,
        )
        self._budget = budget
        self._charge_id: str | None = None
        self._identity = checkpoints.Identity(run_id, purpose, self._plan.digest(), fingerprint)
        self._data_set_id, self._data_changed = data_set_id, data_changed
        self._guarantee = self._promise(test_keys)
        keys = test_keys or Keys.fresh()
        self._sampler = PoissonSampler(size, batch_size, keys.sampler)
        self._mean = NoisyMean(self._plan, keys.noise, self._engine.layout.device)
        self._folder, self._every = checkpoint, checkpoint_every or max(1, self._plan.steps // 20)
        self._model_name = model_name
        self._rehearse_records = max(1, min(3, size, row_memory // (8 * self._engine.width) - 1)) if verify else 0
        self._progress = progress or NoProgress()
        self._current: _Current | None = None
        self._broken = False
        self._moved = False
        self._release: Release[Any] | None = None
        self._done = 0
        self._restore()
        self._start = self._done
        self._untouched = Untouched(model, self._engine.layout)

    @property
    def plan(self) -> Plan:
        """What was fixed before any data was read."""
        return self._plan

    @property
    def steps_taken(self) -> int:
        """Finished logical steps."""
        return self._done

    def __len__(self) -> int:
        return self._plan.steps

    # -- the loop ---------------------------------------------------------------------------------------------------

    def __iter__(self) -> Iterator[Any]:
        """Yields collated microbatches until the planned steps are done."""
        if self._broken:
            raise TrainingError(
                "PrivateTraining: a step must end before the next begins, got one that failed half-way; make the "
                "training again, which resumes from its last checkpoint"
            )
        task = self._progress.task("private training", self._plan.steps, "step")
        task.advance(self._done)
        try:
            if self._rehearse_records:
                yield from self._rehearse()
                self._rehearse_records = 0
            with layer_randomness(self._sampler.layer_seed(self._done)):
                while self._done < self._plan.steps:
                    self._mean.begin()
                    pieces = list(microbatches(self._sampler.draw(self._done), self._plan.microbatch_size))
                    for number, (indices, mask) in enumerate(pieces, 1):
                        self._engine.open(len(mask))
                        self._current = _Current(self._mask(mask), last=number == len(pieces))
                        yield self._collate(indices)
                        self._need_stepped()
                    task.advance(1)
        finally:
            self._current = None
            self._engine.close()

    def _rehearse(self) -> Iterator[Any]:
        rehearsal = Rehearsal(self._engine, self._plan.max_grad_norm, self._rehearse_records)
        with undisturbed(self.model):
            for indices, mask in rehearsal.batches():
                if rehearsal.through_engine:
                    self._engine.open(len(mask))
                self._current = _Current(self._mask(mask), last=False, rehearsal=rehearsal)
                yield self._collate(indices)
                self._need_stepped()
        rehearsal.judge()

    def step(self, losses: Tensor) -> None:
        """Takes the per-sample losses of the current microbatch; after the last of a logical batch, the model moves.

        Shapes: losses: [B] with B = all rows of the batch, padding included.
        Raises: RefusedTraining, for a scalar, a wrong length, or half precision that the plan does not know of.
        """
        current = self._current
        if current is None:
            raise TrainingError(
                "PrivateTraining.step: each batch must be given once, got a call without a new batch; call it once in "
                "the body of `for batch in training`"
            )
        losses = need_losses(losses, len(current.mask))
        if current.rehearsal is not None:
            current.rehearsal.take(losses, current.mask)
        else:
            self._engine.need_planned_precision()  # before the charge, where there was no rehearsal
            self._charge()
            self._mean.add(self._engine.rows(losses, current.mask), current.mask)
        self._engine.close()
        self._current = None
        if current.last:
            self._update()

    def finish(self, folder: Path | None = None) -> Release[Any]:
        """The release: Adapter or SoftPrompt for a PEFT model, otherwise a Model written to `folder`.

        Guarantee: one training yields one release; the keys are forgotten. The last checkpoint stays, so that a crash
        before the release is stored can give the same release again; `discard_checkpoint` removes it.
        Raises: TrainingError, while steps are missing.
        """
        if self._release is None:
            if self._done < self._plan.steps:
                raise TrainingError(
                    f"PrivateTraining.finish: all {self._plan.steps} planned steps must be done, got {self._done}; run "
                    "the loop to its end (stopping early because of private data has no accounting)"
                )
            self._charge()
            self._untouched.check()
            self._claim()
            message: Adapter | SoftPrompt | Model = payload(
                self.model, guarantee=self._guarantee, plan=self._plan, model_name=self._model_name, folder=folder
            )
            event = self._plan.event() if self._guarantee.is_private else accounting.none_event()
            provenance = Provenance(MECHANISM, __version__, self._data_set_id, self._plan.to_json())
            if self._budget.ledger is not None and self._charge_id is not None:
                self._budget.ledger.taken(self._charge_id, self._done)
            self._release = Release(message, self._guarantee, event, provenance, self._charge_id)
            self._mean.erase()
            self._engine.forget()
        return self._release

    # -- losses -----------------------------------------------------------------------------------------------------

    def causal_lm_losses(self, batch: Any, reduction: Literal["mean", "sum"] = "mean") -> Tensor:
        """Next-token loss of each sequence of a batch with input_ids, labels and maybe attention_mask; [B]."""
        inputs = {name: value for name, value in batch.items() if name != "labels"}
        logits = self.model(**inputs, use_cache=False).logits
        return per_sample.causal_lm_losses(logits, batch["labels"], reduction=reduction)

    def classification_losses(self, batch: Any) -> Tensor:
        """Cross-entropy of each sample of a batch with the model's inputs and labels [B]; [B]."""
        inputs = {name: value for name, value in batch.items() if name != "labels"}
        return per_sample.classification_losses(self.model(**inputs).logits, batch["labels"])

    # -- inside -----------------------------------------------------------------------------------------------------

    def _promise(self, test_keys: Keys | None) -> Guarantee:
        reason = ""
        if test_keys is not None:
            reason = "trained with keys that were given, so that it can be repeated"
        elif not kernels.is_private():
            reason = "trained with PRIVKT_KERNELS=reference"
        if not reason:
            return self._plan.guarantee()
        if self._budget.ledger is not None:
            raise RefusedTraining(
                f"PrivateTraining: a budget with a ledger must be spent on a private run, got one {reason}; leave out "
                "test_keys and PRIVKT_KERNELS, or the ledger"
            )
        return Guarantee.none(reason, unit=self._budget.unit, neighbouring=self._budget.neighbouring)

    def _charge(self) -> None:
        """Charges the whole plan, once, before anything is computed that can end in the release.

        A run that died before its release was made goes on under the charge it has; one that made its release can only
        make the same one again, from its last checkpoint.
        """
        ledger = self._budget.ledger
        if ledger is None or self._charge_id is not None:
            return
        # What the sampler really takes: ten times the reserved share would fill all that a zcdp or rdp ledger keeps.
        distance = kernels.gaussian_tv_per_coordinate() * self._plan.coordinates * self._plan.steps
        charge = ledger.charge(
            self._plan.event(),
            self._guarantee,
            run_id=self._identity.run_id,
            purpose=self._identity.purpose,
            fingerprint=self._identity.fingerprint,
            declared=self._plan.to_json(),
            data_changed=self._data_changed,
            resume=True,
            slack_delta=min(self._plan.slack_delta, sampler_slack(distance, self._plan.epsilon)),
        )
        if ledger.status(charge.id).taken is not None and self._start < self._plan.steps:
            raise RefusedTraining(
                "PrivateTraining: one charge pays for one release, and this run has made its own; use the stored "
                "release, or start another run, which is a new spend"
            )
        self._charge_id = charge.id

    def _claim(self) -> None:
        """Makes these weights the charge's only ones: two copies of a run, resumed side by side, end in one release."""
        ledger = self._budget.ledger
        if ledger is None or self._charge_id is None:
            return
        digest = hashlib.sha256()
        for name, parameter in self._engine.layout.named():
            digest.update(name.encode() + b"\0")
            digest.update(parameter.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
        try:
            ledger.stored(self._charge_id, digest.hexdigest(), name="weights")
        except ChargeConflict:
            raise RefusedTraining(
                "PrivateTraining.finish: one charge pays for one release, and another copy of this run has made it; "
                "use that one, or start another run, which is a new spend"
            ) from None

    def _update(self) -> None:
        self._broken = True  # until everything below has happened
        before = None if self._moved else [p.detach().clone() for _, p in self._engine.layout.named()]
        gradient = self._mean.take()
        self.optimizer.zero_grad(set_to_none=True)  # nothing but the noisy mean may move a weight
        for slot, part in self._engine.layout.split(gradient):
            slot.parameter.grad = part.to(slot.parameter.dtype)
        for slot, row in self._engine.layout.still:
            assert slot.parameter.grad is not None
            slot.parameter.grad[row] = 0
        rates = [float(group.get("lr", 1.0)) for group in self.optimizer.param_groups]
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if before is not None and any(rates):
            now = [p for _, p in self._engine.layout.named()]
            if all(torch.equal(old, new) for old, new in zip(before, now, strict=True)):
                raise TrainingError(
                    "PrivateTraining: the first step must move the trainable weights, got none moved; give the "
                    "optimizer the parameters that the model uses now, with a learning rate that their dtype can hold"
                )
            self._moved = True
        if self.scheduler is not None:
            self.scheduler.step()
        self._done += 1
        if self._folder is not None and (self._done % self._every == 0 or self._done == self._plan.steps):
            self._save()
        self._broken = False

    def _save(self) -> None:
        assert self._folder is not None
        weights = {name: parameter.detach().cpu() for name, parameter in self._engine.layout.named()}
        scheduler = None if self.scheduler is None else self.scheduler.state_dict()
        state = checkpoints.State(self._done, weights, self.optimizer.state_dict(), scheduler)
        checkpoints.save(self._folder, self._identity, state)

    def _restore(self) -> None:
        state = None if self._folder is None else checkpoints.load(self._folder, self._identity)
        if state is None:
            return
        with torch.no_grad():
            for name, parameter in self._engine.layout.named():
                parameter.copy_(state.weights[name])
        self.optimizer.load_state_dict(dict(state.optimizer))
        if self.scheduler is not None and state.scheduler is not None:
            self.scheduler.load_state_dict(dict(state.scheduler))
        self._done, self._moved = state.step, True

    def discard_checkpoint(self) -> None:
        """Removes the checkpoint, once the release is stored."""
        if self._folder is not None:
            checkpoints.erase(self._folder)

    def _collate(self, indices: Sequence[int]) -> Any:
        return self._collate_fn([self._dataset[i] for i in indices])

    def _mask(self, mask: list[bool]) -> Tensor:
        return torch.tensor(mask, device=self._engine.layout.device)

    def _need_stepped(self) -> None:
        if self._current is not None:
            raise TrainingError(
                "PrivateTraining: every batch must be given to step(), got one that was skipped; do not filter batches "
                "(which depends on private data), call training.step(losses) once for each"
            )
