"""What private training refuses, and what can go wrong while it runs.

Everything under `RefusedTraining` is found before the ledger is charged. No message holds anything of a record.
"""

from __future__ import annotations

from privkt.privacy.errors import RefusedInput


class RefusedTraining(RefusedInput):
    """A model, optimizer, data set or plan that cannot be trained privately; nothing was spent."""


class UnknownLayer(RefusedTraining):
    """A trainable layer without a rule for its per-sample gradients."""


class VerificationFailed(RefusedTraining):
    """Per-sample gradients of this model are not what a loop over samples gives, or one record moves too much."""


class TrainingError(RuntimeError):
    """Private training cannot go on; what was charged stays charged and the run can be resumed."""


class CheckpointError(TrainingError):
    """A checkpoint that is damaged or belongs to another plan."""
