"""The `knowledgesg:` block of a config. Every number here is public."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from privkt.config import DataConfig
from privkt.contracts import MethodConfig, Recipe
from privkt.synthesis.finetune import Schedule, TrainingConfig
from privkt_knowledgesg.arms import Arm
from privkt_knowledgesg.pairs import FieldsConfig, PairTemplateConfig
from privkt_knowledgesg.seeds import Origin


class _Block(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class TuningConfig(TrainingConfig):
    """The private fine-tune of an adapter. Large batches and many epochs serve differential privacy better than the
    reference's batches of 5.

    `loss`: "response" trains on the responses alone, as the paper does; "pair" on everything after the header, which
    also teaches to write instructions.
    """

    epochs: float = Field(default=20.0, gt=0)
    max_length: int = Field(default=512, ge=8)
    lora: dict[str, Any] | None = Field(default_factory=lambda: {"rank": 16, "alpha": 32})
    loss: Literal["response", "pair"] = "response"


class SeedsConfig(DataConfig):
    """A data block of public instructions, and `response`, its column of responses if it has one.

    `public` must be said: whoever writes it vouches that no private row is among them.
    """

    public: Literal[True]
    response: str | None = None

    @model_validator(mode="after")
    def _reads_listed_columns(self) -> SeedsConfig:
        if self.response is not None and self.response not in self.columns:
            raise ValueError(
                f"response names the column {self.response!r}, and `columns` does not list it; add it there"
            )
        return self


class WritingConfig(_Block):
    """How instructions are written: `count` of them, from prompts whose seeds come from `seeding`, in turns.

    "public" shows `shots` seeds, "header" none, "own" `shots` of what the model wrote before. `shape`: "instruction"
    stops before the response, "pair" lets the model write both in one go. `max_tokens` is an instruction's length; a
    response of the writer has as many more as one of the professional model.
    """

    count: int = Field(default=500, ge=1)
    seeding: tuple[Origin, ...] = Field(default=(Origin.PUBLIC, Origin.HEADER), min_length=1)
    shots: int = Field(default=2, ge=1)
    shape: Literal["instruction", "pair"] = "instruction"
    max_tokens: int = Field(default=96, ge=4)
    temperature: float = Field(default=0.7, gt=0)
    top_k: int = Field(default=0, ge=0)
    top_p: float = Field(default=1.0, gt=0, le=1)
    attempts: float = Field(default=4.0, ge=1)
    portion: int = Field(default=128, ge=1)


class FilterConfig(_Block):
    """Which instructions stay. All of it looks at public and released text alone.

    `near_duplicates`: Jaccard similarity of word triples, by MinHash; `tfidf` and `rouge_l`: likeness to a public seed;
    each is off at null. `domain` and `quality` ask the professional model. `unfinished`: what ran out of tokens is cut
    after its last sentence ("trim"), dropped, or kept.
    """

    min_words: int = Field(default=4, ge=1)
    max_words: int = Field(default=200, ge=1)
    near_duplicates: float | None = Field(default=0.7, gt=0, le=1)
    tfidf: float | None = Field(default=0.52, gt=0, le=1)
    rouge_l: float | None = Field(default=None, gt=0, le=1)
    domain: str | None = None
    quality: bool = False
    unfinished: Literal["trim", "drop", "keep"] = "trim"

    @model_validator(mode="after")
    def _some_length_is_left(self) -> FilterConfig:
        if self.min_words > self.max_words:
            raise ValueError(f"min_words must be at most max_words, got {self.min_words} and {self.max_words}")
        return self


class ProfessionalConfig(_Block):
    """How the professional model is asked for responses. `licence` is what its makers say about using its output.

    `as_label`: where responses are labels, one becomes the name of the label whose name it has first, and one without
    any is dropped. `closing`: words after each instruction that the professional model alone reads; by default, where
    responses are labels, that one of their names is wanted, and otherwise none ("": none there either).
    """

    licence: str | None = None
    max_tokens: int = Field(default=128, ge=1)
    temperature: float = Field(default=0.0, ge=0)
    top_p: float = Field(default=1.0, gt=0, le=1)
    min_words: int = Field(default=1, ge=1)
    as_label: bool = True
    closing: str | None = None
    layout: Literal["auto", "continue", "chat"] = "auto"
    portion: int = Field(default=128, ge=1)


class StudentConfig(_Block):
    """The server's ordinary fine-tune on the answered instructions. `start`: "base" makes a new adapter, "adapter" goes
    on with the one that arrived, whatever its rank. `epochs`: passes over `writing.count` pairs; every training sees so
    many examples, in more passes where it has fewer pairs, so that none without private data depends on what the
    arrived adapter wrote."""

    start: Literal["base", "adapter"] = "base"
    epochs: float = Field(default=3.0, gt=0)
    batch_size: int = Field(default=16, ge=1)
    learning_rate: float = Field(default=2e-4, gt=0)
    weight_decay: float = Field(default=0.0, ge=0)
    max_length: int = Field(default=512, ge=8)
    schedule: Schedule = "cosine"
    lora: dict[str, Any] = Field(default_factory=lambda: {"rank": 16, "alpha": 32})

    def recipe(self, seed: int) -> Recipe:
        """The recipe of one training."""
        return Recipe(
            task="causal-lm",
            epochs=self.epochs,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            weight_decay=self.weight_decay,
            max_length=self.max_length,
            schedule=self.schedule,
            lora=self.lora,
            seed=seed,
        )


class ScoringConfig(_Block):
    """How arms are scored at the client. `rows`: the first so many held-out rows, all of them at null."""

    max_tokens: int = Field(default=96, ge=1)
    rows: int | None = Field(default=None, ge=1)
    shots: int = Field(default=2, ge=1)
    perplexity: bool = True


class KnowledgeSGConfig(MethodConfig):
    """KnowledgeSG's settings. Every number here is public.

    `label_names` gives labels the words that a response has in their place. `together`: several clients' answered
    instructions train one adapter, that all of them get, instead of one each.
    `canaries` are made-up strings planted in the private data, counted in what was made (locally, afterwards).
    """

    template: PairTemplateConfig = PairTemplateConfig()
    fields: FieldsConfig = FieldsConfig()
    label_names: dict[str, str] = Field(default_factory=dict)
    tuning: TuningConfig = TuningConfig()
    seeds: SeedsConfig | None = None
    writing: WritingConfig = WritingConfig()
    filters: FilterConfig = FilterConfig()
    professional: ProfessionalConfig = ProfessionalConfig()
    student: StudentConfig = StudentConfig()
    scoring: ScoringConfig = ScoringConfig()
    together: bool = False
    baselines: tuple[Arm, ...] = (Arm.BASE, Arm.DP_ADAPTER, Arm.NO_PRIVATE)
    canaries: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _names_where_there_are_labels(self) -> KnowledgeSGConfig:
        if self.label_names and self.fields.response != "label":
            raise ValueError(
                f"label_names stand for labels, and fields.response is the column {self.fields.response!r}; write "
                "`response: label`, or remove label_names"
            )
        return self

    @model_validator(mode="after")
    def _seeds_where_they_are_needed(self) -> KnowledgeSGConfig:
        if self.seeds is None and set(self.writing.seeding) == {Origin.PUBLIC}:
            raise ValueError("writing.seeding must have `header` or `own` beside `public` where no `seeds` are given")
        if self.together and self.student.start == "adapter":
            raise ValueError("together trains one adapter for all clients, which cannot start from each one's own")
        return self

    @property
    def arms(self) -> tuple[Arm, ...]:
        """Every arm that is scored, in the order of tables; KnowledgeSG always is."""
        wanted = {*self.baselines, Arm.KNOWLEDGESG}
        if self.seeds is None:
            wanted.discard(Arm.SEEDS)
        return tuple(arm for arm in Arm if arm in wanted)
