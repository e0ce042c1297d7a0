"""The ways in which the same base model is taught, so that KnowledgeSG's own can be judged beside them."""

from __future__ import annotations

from enum import StrEnum


class Arm(StrEnum):
    """One adapter for the base model, or none; the value is its name in a config."""

    BASE = "base"
    IN_CONTEXT = "in-context"
    PRIVATE = "private"
    DP_ADAPTER = "dp-adapter"
    SELF_INSTRUCT = "self-instruct"
    DP_PAIRS = "dp-pairs"
    DP_INSTRUCTIONS = "dp-instructions"
    SEEDS = "teacher-on-seeds"
    NO_PRIVATE = "no-private-data"
    KNOWLEDGESG = "knowledgesg"

    @property
    def heading(self) -> str:
        """How tables name it."""
        return _TITLES[self]

    @property
    def protection(self) -> str:
        """What protects the private rows from everybody but the client, in the words of `privkt.evaluation.report`."""
        if self in (Arm.PRIVATE, Arm.IN_CONTEXT):
            return "nothing crossed"
        return "nothing about records crossed" if self in _WITHOUT_DATA else "release"

    @property
    def is_served(self) -> bool:
        """Whether the server trains it."""
        return self in _SERVED

    @property
    def is_released(self) -> bool:
        """Whether the server makes it of what the released adapter wrote, so that it may start from that adapter."""
        return self.is_served and self not in _WITHOUT_DATA


_WITHOUT_DATA = (Arm.BASE, Arm.SELF_INSTRUCT, Arm.SEEDS, Arm.NO_PRIVATE)
_SERVED = (Arm.SELF_INSTRUCT, Arm.DP_PAIRS, Arm.DP_INSTRUCTIONS, Arm.SEEDS, Arm.NO_PRIVATE, Arm.KNOWLEDGESG)
_TITLES = {
    Arm.BASE: "base model",
    Arm.IN_CONTEXT: "base model, private examples in its prompt (not private)",
    Arm.PRIVATE: "trained on the private data (not private)",
    Arm.DP_ADAPTER: "DP adapter alone",
    Arm.SELF_INSTRUCT: "self-instruct from public seeds, no private data",
    Arm.DP_PAIRS: "DP generation, pairs in one go, no teacher",
    Arm.DP_INSTRUCTIONS: "DP generation, instruction first, no teacher",
    Arm.SEEDS: "teacher on the public seeds, no private data",
    Arm.NO_PRIVATE: "teacher on the base model's instructions, no private data",
    Arm.KNOWLEDGESG: "KnowledgeSG",
}
