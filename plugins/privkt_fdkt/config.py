"""The `fdkt:` block of a config."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from privkt.contracts import MethodConfig, Sampling
from privkt.synthesis.filters import Validity
from privkt.synthesis.finetune import FinetuneConfig
from privkt.synthesis.sampling import SamplingRule
from privkt.synthesis.task_model import SlmConfig
from privkt.synthesis.templates import TemplateConfig
from privkt_fdkt.arms import Arm


class _Block(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class AskConfig(_Block):
    """How the large model is asked.

    `layout`: "continue" shows rows and lets the model write the next (works with base models and small ones); "chat"
    instructs; "auto" takes chat only where the backend cannot continue plain text.
    `texts_per_prompt`: 1 stops at the end of the first text; more are read as far as they parse.
    """

    max_tokens: int = Field(default=64, ge=4)
    temperature: float = Field(default=0.8, ge=0)
    top_k: int = Field(default=0, ge=0)
    top_p: float = Field(default=0.9, gt=0, le=1)
    texts_per_prompt: int = Field(default=1, ge=1)
    layout: Literal["auto", "continue", "chat"] = "auto"
    selection_tokens: int = Field(default=24, ge=4)
    portion: int = Field(default=128, ge=1)


class FDKTConfig(MethodConfig):
    """FDKT's settings. Every number here is public.

    `samples_per_label` is declared, never counted in the data. `domains` gives clients domains of their own in the
    control code, by client name. `prompts` is how often the large model is asked to write, for each client and arm;
    `demonstrations` how many kept texts a label it is shown, of at most `labels_per_prompt` labels.
    The baselines no-noise and raw-demonstrations need the role `local_llm`, in process at the client; `missing_models`
    says what happens without it (skip tells so in the notes).
    `canaries` are made-up strings planted in the private data, counted in what was made (locally, afterwards).
    """

    template: TemplateConfig
    domains: dict[str, str] = Field(default_factory=dict)
    samples_per_label: int = Field(default=200, ge=1)
    max_tokens: int = Field(default=64, ge=4)
    temperature: float = Field(default=1.0, gt=0)
    top_k: int = Field(default=50, ge=0)
    top_p: float = Field(default=0.9, gt=0, le=1)
    attempts: float = Field(default=3.0, ge=1)
    min_words: int = Field(default=10, ge=1)
    min_characters: int = Field(default=20, ge=1)
    near_duplicates: float | None = Field(default=None, gt=0, le=1)
    selection: bool = True
    cluster_size: int = Field(default=4, ge=1)
    prompts: int = Field(default=200, ge=1)
    demonstrations: int = Field(default=2, ge=1)
    labels_per_prompt: int = Field(default=4, ge=1)
    llm: AskConfig = AskConfig()
    generator: FinetuneConfig = FinetuneConfig()
    slm: SlmConfig = SlmConfig()
    baselines: tuple[Arm, ...] = (Arm.PRIVATE, Arm.PRIVATE_SYNTHETIC)
    missing_models: Literal["refuse", "skip"] = "refuse"
    canaries: tuple[str, ...] = ()

    @property
    def arms(self) -> tuple[Arm, ...]:
        """Every arm that is trained, in the order of tables; FDKT always is."""
        wanted = {*self.baselines, Arm.FDKT}
        if not self.selection:
            wanted.discard(Arm.NO_SELECTION)
        return tuple(arm for arm in Arm if arm in wanted)

    def sampling_rule(self, seed: int) -> SamplingRule:
        """How D' is drawn from the generator."""
        return SamplingRule(
            per_label=self.samples_per_label,
            sampling=Sampling(
                max_new_tokens=self.max_tokens,
                temperature=self.temperature,
                top_k=self.top_k,
                top_p=self.top_p,
                seed=seed,
            ),
            validity=self.validity(),
            attempts=self.attempts,
            near_duplicates=self.near_duplicates,
        )

    def validity(self) -> Validity:
        """When a text, drawn or answered, is long enough."""
        return Validity(self.min_words, self.min_characters)
