"""The ways in which the small model is trained, so that FDKT's own can be judged beside them."""

from __future__ import annotations

from enum import StrEnum


class Arm(StrEnum):
    """One training set for the same small model; the value is its name in a config."""

    PRIVATE = "private"
    SYNTHETIC = "synthetic"
    PRIVATE_SYNTHETIC = "private+synthetic"
    ZERO_SHOT = "zero-shot"
    NO_SELECTION = "no-selection"
    FDKT = "fdkt"
    NO_NOISE = "no-noise"
    RAW = "raw-demonstrations"

    @property
    def heading(self) -> str:
        """How tables name it."""
        return _TITLES[self]

    @property
    def protection(self) -> str:
        """What protects the texts that a large model saw for the arm, in the words of `privkt.evaluation.report`."""
        if self.is_open:
            return "none"
        return {Arm.PRIVATE: "nothing crossed", Arm.ZERO_SHOT: "nothing about records crossed"}.get(self, "release")

    @property
    def is_open(self) -> bool:
        """Whether the arm shows text without any guarantee to the large model."""
        return self in (Arm.NO_NOISE, Arm.RAW)

    @property
    def is_augmented(self) -> bool:
        """Whether the server writes texts for it."""
        return self in (Arm.ZERO_SHOT, Arm.NO_SELECTION, Arm.FDKT)


_TITLES = {
    Arm.PRIVATE: "private data alone",
    Arm.SYNTHETIC: "DP synthetic alone",
    Arm.PRIVATE_SYNTHETIC: "private + DP synthetic",
    Arm.ZERO_SHOT: "private + LLM without demonstrations",
    Arm.NO_SELECTION: "FDKT without selection",
    Arm.FDKT: "FDKT",
    Arm.NO_NOISE: "FDKT at eps = inf (not private)",
    Arm.RAW: "raw demonstrations (not private, upper bound)",
}
