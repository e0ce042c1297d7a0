"""Private training of any transformers or PEFT model: exact per-sample clipping, Poisson sampling, keyed noise."""

from privkt.dpsgd.errors import (
    CheckpointError,
    RefusedTraining,
    TrainingError,
    UnknownLayer,
    VerificationFailed,
)
from privkt.dpsgd.heads import HeadPath, head_path
from privkt.dpsgd.losses import causal_lm_losses, causal_lm_losses_from_hidden, classification_losses
from privkt.dpsgd.peft_types import register_adapter
from privkt.dpsgd.plan import Plan, make_plan, steps_of
from privkt.dpsgd.rules import RepeatedRule, Rule, register_rule, rule_for
from privkt.dpsgd.sampling import Keys
from privkt.dpsgd.training import PrivateTraining

__all__ = [
    "CheckpointError",
    "HeadPath",
    "Keys",
    "Plan",
    "PrivateTraining",
    "RefusedTraining",
    "RepeatedRule",
    "Rule",
    "TrainingError",
    "UnknownLayer",
    "VerificationFailed",
    "causal_lm_losses",
    "causal_lm_losses_from_hidden",
    "classification_losses",
    "head_path",
    "make_plan",
    "register_adapter",
    "register_rule",
    "rule_for",
    "steps_of",
]
