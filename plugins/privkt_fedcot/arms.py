"""The ways in which questions are answered, so that FedCoT's own can be judged beside them."""

from __future__ import annotations

from enum import StrEnum


class Arm(StrEnum):
    """Where rationales come from; the value is its name in a config."""

    LABEL_ONLY = "label-only"
    SELF_RATIONALE = "self-rationale"
    FEDCOT = "fedcot"
    RAW = "raw-prompts"
    LARGE = "large-model"

    @property
    def heading(self) -> str:
        """How tables name it."""
        return _TITLES[self]

    @property
    def protection(self) -> str:
        """What protects the texts that a large model saw for the arm, in the words of `privkt.evaluation.report`."""
        if self.is_open:
            return "none"
        return "release" if self is Arm.FEDCOT else "nothing crossed"

    @property
    def has_rationales(self) -> bool:
        """Whether the arm's small model learns from rationales."""
        return self in (Arm.SELF_RATIONALE, Arm.FEDCOT, Arm.RAW)

    @property
    def is_open(self) -> bool:
        """Whether the arm shows text without any guarantee to the large model."""
        return self in (Arm.RAW, Arm.LARGE)


_TITLES = {
    Arm.LABEL_ONLY: "labels alone",
    Arm.SELF_RATIONALE: "labels + own rationales, no server",
    Arm.FEDCOT: "FedCoT",
    Arm.RAW: "rationales for raw questions (not private, upper bound)",
    Arm.LARGE: "the large model itself (not private)",
}
