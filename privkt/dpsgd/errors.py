"""What private training refuses, and what can go wrong while it runs.

What a model, optimizer, data set, plan or loop body is refused for (`RefusedTraining`) is looked for before the ledger
is charged: at construction, and in the rehearsal that runs the loop body first. Only a loop that changes its behaviour
later, or one without rehearsal, meets it after the charge. No message holds anything of a record.
"""

from __future__ import annotations

from privkt.privacy.errors import RefusedInput


class RefusedTraining(RefusedInput):
    """A model, optimizer, data set, plan or loop that cannot be trained privately."""


class UnknownLayer(RefusedTraining):
    """A trainable layer without a rule for its per-sample gradients."""


class VerificationFailed(RefusedTraining):
    """Per-sample gradients of this model are not what a loop over samples gives, or one record moves too much."""


class TrainingError(RuntimeError):
    """Private training cannot go on; what was charged stays charged and the run can be resumed."""


class CheckpointError(TrainingError):
    """A checkpoint that is damaged or belongs to another plan."""
