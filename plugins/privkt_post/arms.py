"""The ways in which held-out texts are labelled, so that POST's own prompt can be judged beside them."""

from __future__ import annotations

from enum import StrEnum


class Arm(StrEnum):
    """One model with one prompt; the value is its name in a config."""

    ZERO_SHOT = "zero-shot"
    STUDENT = "student-prompt"
    DIRECT = "direct"
    INFERENCE = "inference-time"
    TARGET = "target-prompt"
    POST = "post"
    QUERIES = "private-queries"

    @property
    def heading(self) -> str:
        """How tables name it."""
        return _TITLES[self]

    @property
    def protection(self) -> str:
        """What protects what another party saw for the arm, in the words of `privkt.evaluation.report`."""
        return {Arm.ZERO_SHOT: "nothing about records crossed", Arm.TARGET: "nothing crossed"}.get(self, "release")


_TITLES = {
    Arm.ZERO_SHOT: "large model, no prompt (ZS)",
    Arm.STUDENT: "small model, its prompt (cPT)",
    Arm.DIRECT: "large model, the small one's prompt as it is (direct)",
    Arm.INFERENCE: "large model, shifted by the small one at inference",
    Arm.TARGET: "large model, prompt tuned on it (PT)",
    Arm.POST: "POST",
    Arm.QUERIES: "POST, asked with perturbed texts",
}
