"""The `fedcot:` block of a config."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from privkt.config import DataConfig
from privkt.contracts import MethodConfig, Recipe
from privkt_fedcot.arms import Arm


class _Block(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class TaskConfig(_Block):
    """What the rows ask.

    `kind`: "multiple-choice" (data.labels name the places of the choices, A B C, and the label is one of them),
    "yes-no" (data.labels are the two answers) or "free-text" (the label is the answer itself, and data.labels the
    public list of answers that there may be). `choices` names a column with a JSON list of texts, `context` one with a
    passage; both belong into `columns` of the data.
    """

    kind: Literal["multiple-choice", "yes-no", "free-text"] = "multiple-choice"
    choices: str = "choices"
    context: str | None = None


class LengthConfig(_Block):
    """How many tokens of each part of a row are perturbed: public, the same for every row, longer parts are cut."""

    question: int = Field(default=32, ge=1)
    choice: int = Field(default=4, ge=1)
    context: int = Field(default=64, ge=1)


class VocabularyConfig(_Block):
    """The public vocabulary and vectors: of a transformers `model`, or `vectors`, a file of words and numbers."""

    model: str | None = None
    vectors: str | None = None


class PerturbationConfig(_Block):
    """How questions are perturbed.

    `strategy`: "exponential" draws every token by the same law; "adaptive" lets the radius vary, by a law fixed in
    advance (`soft_radius`). `mechanism` names another one instead. `epsilon` is that of one token; without it, the
    largest that keeps a whole row within the client's budget. `shares` gives the parts of a row unequal budgets: a
    token of the question gets question / choice times that of a choice, fixed before any text is seen.
    """

    strategy: Literal["exponential", "adaptive"] = "exponential"
    mechanism: str | None = None
    options: dict[str, Any] = Field(default_factory=dict)
    vocabulary: VocabularyConfig = VocabularyConfig()
    tokens: LengthConfig = LengthConfig()
    epsilon: float | None = Field(default=None, gt=0)
    shares: dict[str, float] = Field(default_factory=dict)

    @field_validator("shares")
    @classmethod
    def _positive(cls, shares: dict[str, float]) -> dict[str, float]:
        if any(not value > 0 for value in shares.values()):
            raise ValueError("must be numbers > 0")
        return shares

    @property
    def name(self) -> str:
        """The mechanism's name."""
        return self.mechanism or ("exponential" if self.strategy == "exponential" else "soft_radius")


class RationaleConfig(_Block):
    """How the large model is asked. `layout` as in FDKT; `worked` replaces the built-in public example."""

    max_tokens: int = Field(default=64, ge=8)
    temperature: float = Field(default=0.0, ge=0)
    layout: Literal["auto", "continue", "chat"] = "auto"
    worked: str | None = None
    portion: int = Field(default=128, ge=1)


class DecoderConfig(_Block):
    """How the small model turns (perturbed question, its rationale, true question) into a rationale.

    `kind`: "in-context" shows it a worked example; "trained" first teaches it on public questions (`public`: a data
    block like a client's), whose perturbed and plain rationales the server makes too, and never on private rows;
    `perturbation.epsilon` must be given then. `encode_weight`: the share of the loss on p -> p'.
    """

    kind: Literal["in-context", "trained"] = "in-context"
    max_tokens: int = Field(default=64, ge=8)
    temperature: float = Field(default=0.0, ge=0)
    public: DataConfig | None = None
    encode_weight: float = Field(default=0.5, ge=0, lt=1)
    epochs: float = Field(default=3.0, gt=0)
    learning_rate: float = Field(default=5e-5, gt=0)


class SlmConfig(_Block):
    """How the task model is trained: L = (1 - rationale_weight) L(answer) + rationale_weight L(rationale)."""

    rationale_weight: float = Field(default=0.5, ge=0, lt=1)
    epochs: float = Field(default=5.0, gt=0)
    batch_size: int = Field(default=32, ge=1)
    learning_rate: float = Field(default=5e-5, gt=0)
    weight_decay: float = Field(default=0.0, ge=0)
    max_length: int = Field(default=192, ge=16)
    lora: dict[str, Any] | None = None
    trainable: str = "all"

    def recipe(self, seed: int, **changes: Any) -> Recipe:
        """The recipe of one training."""
        values: dict[str, Any] = {
            "task": "causal-lm",
            "epochs": self.epochs,
            "batch_size": self.batch_size,
            "learning_rate": self.learning_rate,
            "weight_decay": self.weight_decay,
            "max_length": self.max_length,
            "lora": self.lora,
            "trainable": self.trainable,
            "seed": seed,
        }
        return Recipe(**{**values, **changes})


class FedCoTConfig(MethodConfig):
    """FedCoT's settings. Every number here is public.

    `filter`: "agrees" keeps a rationale only where the answer it ends with is the row's own label, which the client
    alone knows; "none" keeps all. It never causes another question.
    `baselines`: further ways to train the same small model. raw-prompts and large-model need the role `local_llm`, in
    process at the client; `missing_models` says what happens without it (skip tells so in the notes).
    """

    task: TaskConfig = TaskConfig()
    perturbation: PerturbationConfig = PerturbationConfig()
    rationale: RationaleConfig = RationaleConfig()
    decoder: DecoderConfig = DecoderConfig()
    slm: SlmConfig = SlmConfig()
    filter: Literal["agrees", "none"] = "agrees"
    baselines: tuple[Arm, ...] = (Arm.LABEL_ONLY, Arm.SELF_RATIONALE)
    missing_models: Literal["refuse", "skip"] = "refuse"

    @property
    def arms(self) -> tuple[Arm, ...]:
        """Every arm, in the order of tables; FedCoT always is one."""
        wanted = {*self.baselines, Arm.FEDCOT}
        return tuple(arm for arm in Arm if arm in wanted)
