"""The `dp_synth:` block of a config. Every number here is public."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from privkt.contracts import MethodConfig, Sampling
from privkt.synthesis.filters import Validity
from privkt.synthesis.finetune import FinetuneConfig
from privkt.synthesis.sampling import SamplingRule
from privkt.synthesis.task_model import SlmConfig
from privkt.synthesis.templates import TemplateConfig


class DPSynthConfig(MethodConfig):
    """Settings of DP generation with control codes.

    `samples_per_label` is declared, never counted in the data. `domains` gives clients domains of their own in the
    control code, by client name. `output` is a JSON-lines file that gets what crossed, for every seed but 0 with the
    seed in its name; a file that lies there stays, and the new one has a number. `slm` trains a small model on the
    synthetic texts, if there is the role `slm` and held-out rows; `baselines` may add the same model on the private
    rows, which is not private.
    """

    template: TemplateConfig
    domains: dict[str, str] = Field(default_factory=dict)
    samples_per_label: int = Field(default=500, ge=1)
    max_tokens: int = Field(default=64, ge=4)
    temperature: float = Field(default=1.0, gt=0)
    top_k: int = Field(default=50, ge=0)
    top_p: float = Field(default=0.9, gt=0, le=1)
    attempts: float = Field(default=3.0, ge=1)
    min_words: int = Field(default=10, ge=1)
    min_characters: int = Field(default=20, ge=1)
    near_duplicates: float | None = Field(default=None, gt=0, le=1)
    generator: FinetuneConfig = FinetuneConfig()
    slm: SlmConfig = SlmConfig()
    baselines: tuple[Literal["private"], ...] = ("private",)
    output: str | None = None
    canaries: tuple[str, ...] = ()

    def sampling_rule(self, seed: int) -> SamplingRule:
        """How texts are drawn from the generator."""
        return SamplingRule(
            per_label=self.samples_per_label,
            sampling=Sampling(
                max_new_tokens=self.max_tokens,
                temperature=self.temperature,
                top_k=self.top_k,
                top_p=self.top_p,
                seed=seed,
            ),
            validity=Validity(self.min_words, self.min_characters),
            attempts=self.attempts,
            near_duplicates=self.near_duplicates,
        )
