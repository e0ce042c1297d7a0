"""Private training of any transformers or PEFT model with a loop that looks like an ordinary one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from privkt import __version__
from privkt.contracts.messages import Adapter, Model, SoftPrompt
from privkt.contracts.progress import NoProgress, Progress
from privkt.dpsgd import checkpoint as checkpoints
from privkt.dpsgd import losses as per_sample
from privkt.dpsgd.account import Account, weights_digest
from privkt.dpsgd.checks import (
    Untouched,
    need_data_set,
    need_losses,
    need_optimizer,
    need_order,
    need_users,
    samples_at_once,
)
from privkt.dpsgd.clipping import Clipping
from privkt.dpsgd.engine import Engine
from privkt.dpsgd.errors import RefusedTraining, TrainingError
from privkt.dpsgd.export import payload
from privkt.dpsgd.gradients import SampleGradients
from privkt.dpsgd.layout import lay_out
from privkt.dpsgd.mechanism import NoisyMean
from privkt.dpsgd.memory import Footprint, MemoryPlan
from privkt.dpsgd.pieces import Current, Piece, record_pieces, user_pieces
from privkt.dpsgd.plan import Plan, make_plan, steps_of
from privkt.dpsgd.ranks import Ranks
from privkt.dpsgd.sampling import Keys, layer_randomness
from privkt.dpsgd.schemes import rarely_met_cap
from privkt.dpsgd.slacks import variation_per_coordinate
from privkt.dpsgd.updates import Update
from privkt.dpsgd.users import UserDraw, UserSampler
from privkt.dpsgd.verify import Rehearsal, undisturbed
from privkt.privacy import Budget, Provenance, Release, accounting
from privkt.privacy.correlated import survives_a_restart

MECHANISM = "privkt:dp-sgd"


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
        max_grad_norm: float | None = None,
        clipping: Clipping | None = None,
        sampler: str = "poisson",
        cap: int | None = None,
        order_seed: int | None = None,
        noise: str = "gaussian",
        coefficients: Sequence[float] = (1.0,),
        noise_bias_correction: bool = False,
        users: Sequence[Sequence[int]] | None = None,
        records_per_user: int | None = None,
        run_id: str,
        purpose: str,
        fingerprint: str,
        data_set_id: str,
        data_changed: bool = False,
        checkpoint: Path | str | None = None,
        checkpoint_every: int | None = None,
        scheduler: Any = None,
        model_name: str | None = None,
        row_memory: int = 2**31,
        verify: bool = True,
        progress: Progress | None = None,
        test_keys: Keys | None = None,
    ) -> None:
        self._ranks = Ranks()
        need_data_set(dataset, size if users is None else None)
        need_users(users, records_per_user)
        self.model, self.optimizer, self.scheduler = model, optimizer, scheduler
        self._dataset, self._collate_fn = dataset, collate_fn
        layout = lay_out(model)
        each = records_per_user or 1
        at_once = samples_at_once(microbatch_size, layout, batch_size, row_memory, records_per_user=each)
        self._engine = Engine(model, records_per_unit=min(each, at_once))
        need_optimizer(optimizer, self._engine.layout, scheduler)
        self._memory = Footprint(self._engine, optimizer, at_once)
        planned = steps_of(size, batch_size, epochs, steps, sampler=sampler)
        if sampler == "truncated-poisson" and cap is None:
            cap = rarely_met_cap(size, batch_size, planned, budget.delta, multiple_of=at_once)
        self._plan = make_plan(
            budget,
            size=size,
            batch_size=batch_size,
            steps=planned,
            max_grad_norm=1.0 if max_grad_norm is None and clipping is None else max_grad_norm,
            clipping=clipping,
            sampler=sampler,
            cap=cap,
            order_seed=order_seed,
            noise=noise,
            coefficients=tuple(coefficients),
            records_per_user=records_per_user,
            microbatch_size=at_once,
            coordinates=self._engine.width,
            variation_per_coordinate=variation_per_coordinate(noise),
            half_precision=self._engine.half_precision,
        )
        self._identity = checkpoints.Identity(run_id, purpose, self._plan.digest(), fingerprint)
        self._ranks.need_same(self._plan.digest(), "the plan")
        if self._ranks.world > 1:
            self._ranks.need_same(weights_digest(self._engine.layout.named()), "the trainable parameters")
        self._data_set_id = data_set_id
        self._account = Account(
            budget, self._plan, self._identity, data_changed=data_changed, public_keys=test_keys is not None
        )
        keys = test_keys or Keys.fresh()
        self._mean = NoisyMean(self._plan, keys.noise, self._engine.layout, self._ranks)
        self._weights = Update(
            optimizer,
            self._engine.layout,
            self._mean,
            several=self._ranks.world > 1,
            coefficients=len(self._plan.coefficients),
            noise_bias_correction=noise_bias_correction,
        )
        self._folder = None if checkpoint is None else Path(checkpoint)
        self._every = checkpoint_every or max(1, self._plan.steps // 20)
        self._model_name = model_name
        self._rehearse_records = max(1, min(3, size, row_memory // (8 * self._engine.width) - 1)) if verify else 0
        self._progress = progress or NoProgress()
        self._current: Current | None = None
        self._broken = self._charged = self._in_loop = False
        self._release: Release[Any] | None = None
        self._done = 0
        sampler_state = self._restore()
        self._start = self._done
        key = self._ranks.share(keys.sampler)
        self._sampler = self._plan.scheme.sampler(key, start=self._done, state=sampler_state)
        self._users = None
        if users is not None and records_per_user is not None:
            self._users = UserSampler(self._sampler, users, size=size, records_per_user=records_per_user, key=key)
        self._untouched = Untouched(model, self._engine.layout)

    @property
    def plan(self) -> Plan:
        """What was fixed before any data was read."""
        return self._plan

    @property
    def memory_plan(self) -> MemoryPlan:
        """Bytes by what they are for; activations once the rehearsal has seen them. Said before the first step."""
        return self._memory.plan

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
        if self._in_loop:  # pieces of one draw would be added to the sum of another
            raise TrainingError(
                "PrivateTraining: one loop may run at a time, got a second one begun before the first ended; close the "
                "first iterator"
            )
        self._in_loop = True
        task = self._progress.task("private training", self._plan.steps, "step")
        task.advance(self._done)
        try:
            if self._rehearse_records:
                yield from self._rehearse()
                self._rehearse_records = 0
            self._memory.tell(self._progress)
            with layer_randomness(self._sampler.layer_seed(self._done, self._ranks.rank)):
                while self._done < self._plan.steps:
                    self._mean.begin()
                    pieces = self._pieces()
                    for number, piece in enumerate(pieces, 1):
                        piece.open(self._engine)
                        self._current = Current(self._mask(piece.mask), piece.ends, last=number == len(pieces))
                        yield self._collate(piece.indices)
                        self._need_stepped()
                    task.advance(1)
        finally:
            self._in_loop = False
            self._current = None
            self._engine.close()

    def _pieces(self) -> list[Piece]:
        """This process's microbatches of the step's draw: at least one, which may hold nothing but fillers."""
        size = self._plan.microbatch_size
        if self._users is None:
            drawn = self._sampler.draw(self._done)
            mine = self._ranks.mine(record_pieces(drawn, size)) or record_pieces(drawn[:0], size)
        else:
            users, at_once = self._users.draw(self._done), self._engine.records_per_unit
            none = UserDraw(users.users[:0], users.rows[:0], users.mask[:0])
            mine = self._ranks.mine(user_pieces(users, size, at_once)) or user_pieces(none, size, at_once)
        return [piece for unit in mine for piece in unit]

    def _rehearse(self) -> Iterator[Any]:
        single = self._engine if self._engine.records_per_unit == 1 else Engine(self.model)
        rehearsal = Rehearsal(single, self._plan.max_grad_norm, self._rehearse_records, self._memory.watch)
        with undisturbed(self.model):
            need_order(self._collate, len(self._dataset))
            try:
                for indices, mask in rehearsal.batches():
                    if rehearsal.through_engine:
                        single.open(len(mask))
                    self._current = Current(self._mask(mask), rehearsal=rehearsal)
                    yield self._collate(indices)
                    self._need_stepped()
            finally:
                single.close()
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
            gradients = self._engine.backward(losses, current.mask)
            if current.ends and not current.last:
                self._mean.add(gradients)
        self._engine.close()
        self._current = None
        if current.last:
            self._update(gradients)

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
            digest = weights_digest(self._engine.layout.named())
            self._ranks.need_same(digest, "the trained weights")
            self._release = self._ranks.first_alone(lambda: self._made(digest, folder), "making the release")
            self._mean.erase()
            self._engine.forget()
        return self._release

    # -- losses -----------------------------------------------------------------------------------------------------

    def causal_lm_losses(self, batch: Any, reduction: Literal["mean", "sum"] = "mean") -> Tensor:
        """Next-token loss of each sequence of a batch with input_ids, labels and maybe attention_mask; [B].

        Logits are never made for the whole batch where the head is known (privkt.dpsgd.heads.head_path).
        """
        inputs = {name: value for name, value in batch.items() if name != "labels"}
        return per_sample.causal_lm_losses_from_hidden(self.model, inputs, batch["labels"], reduction=reduction)

    def classification_losses(self, batch: Any) -> Tensor:
        """Cross-entropy of each sample of a batch with the model's inputs and labels [B]; [B]."""
        inputs = {name: value for name, value in batch.items() if name != "labels"}
        return per_sample.classification_losses(self.model(**inputs).logits, batch["labels"])

    # -- inside -----------------------------------------------------------------------------------------------------

    def _charge(self) -> None:
        if not self._charged:  # a flag of its own: without a ledger there is no id, and every process asks just once
            unfinished = self._start < self._plan.steps
            self._account.charge_id = self._ranks.first_alone(lambda: self._account.charge(unfinished), "the charge")
            self._charged = True

    def _made(self, digest: str, folder: Path | None) -> Release[Any]:
        self._account.claim(digest)
        guarantee = self._account.guarantee
        message: Adapter | SoftPrompt | Model = payload(
            self.model, guarantee=guarantee, plan=self._plan, model_name=self._model_name, folder=folder
        )
        event = self._plan.event() if guarantee.is_private else accounting.none_event()
        provenance = Provenance(MECHANISM, __version__, self._data_set_id, self._plan.to_json())
        self._account.taken(self._done)
        return Release(message, guarantee, event, provenance, self._account.charge_id)

    def _update(self, last: SampleGradients) -> None:
        self._broken = True  # until everything below has happened
        self._untouched.need_settled()
        self._weights.step(last)
        self._untouched.settle()
        if self.scheduler is not None:
            self.scheduler.step()
        self._done += 1
        if self._done % self._every == 0 or self._done == self._plan.steps:
            self._save()
        self._broken = False

    def _save(self) -> None:
        if self._folder is None or not self._ranks.first:
            return
        weights = {name: parameter.detach().cpu() for name, parameter in self._engine.layout.named()}
        scheduler = None if self.scheduler is None else self.scheduler.state_dict()
        drawing = self._sampler.state(self._done).hex()
        state = checkpoints.State(self._done, weights, self.optimizer.state_dict(), scheduler, self._mean.norm, drawing)
        checkpoints.save(self._folder, self._identity, state)

    def _restore(self) -> bytes:
        """Goes on from the last checkpoint, if there is one; what the sampler needs of it."""
        state = self._ranks.first_alone(
            lambda: None if self._folder is None else checkpoints.load(self._folder, self._identity), "resuming"
        )
        if state is None:
            return b""
        with torch.no_grad():
            for name, parameter in self._engine.layout.named():
                parameter.copy_(state.weights[name])
        self.optimizer.load_state_dict(dict(state.optimizer))
        if self.scheduler is not None and state.scheduler is not None:
            self.scheduler.load_state_dict(dict(state.scheduler))
        if not survives_a_restart(self._plan.coefficients):
            raise RefusedTraining(
                "PrivateTraining: correlated noise whose coefficients after the first are not all <= 0 cannot go on "
                "without its key, got such a checkpoint; start another run (a new spend)"
            )
        self._done, self._weights.moved = state.step, True
        self._mean.norm = state.norm or self._mean.norm
        return bytes.fromhex(state.sampler)

    def discard_checkpoint(self) -> None:
        """Removes the checkpoint, once the release is stored."""
        if self._folder is not None and self._ranks.first:
            checkpoints.erase(self._folder)

    def _collate(self, indices: Sequence[int]) -> Any:
        return self._collate_fn([self._dataset[i] for i in indices])

    def _mask(self, mask: list[bool]) -> Tensor:
        return torch.tensor(mask).to(self._engine.layout.device, non_blocking=True)  # else a GPU would be waited for

    def _need_stepped(self) -> None:
        if self._current is not None:
            raise TrainingError(
                "PrivateTraining: every batch must be given to step(), got one that was skipped; do not filter batches "
                "(which depends on private data), call training.step(losses) once for each"
            )
