"""The `post:` block of a config."""

from __future__ import annotations

import math
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from privkt.config import DataConfig
from privkt.contracts import MethodConfig
from privkt_post.arms import Arm


class _Block(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class TaskConfig(_Block):
    """What is asked of a text.

    `name`: a task whose cue and label words are known (see the documentation), or custom. `cue`: the words after the
    text; the next token (or the mask's) is read. `words`: {label: its words}, each counting by its first token.
    `score`: a class is the mean over its words of the "probability" or of the "logit". `calibrate`: class scores
    are taken less their mean over texts of the first public set, behind the prompt in use; in tuning, without one.
    `answer`: for generation, the column with the text to be written, of at most `answer_tokens` tokens.
    """

    kind: Literal["classification", "generation"] = "classification"
    name: str = "custom"
    cue: str | None = None
    words: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    score: Literal["probability", "logit"] = "probability"
    calibrate: bool = False
    max_length: int = Field(default=128, ge=4)
    answer: str | None = None
    answer_tokens: int = Field(default=16, ge=1)

    @model_validator(mode="after")
    def _kinds_have_their_keys(self) -> TaskConfig:
        if self.kind == "generation" and self.answer is None:
            raise ValueError("a generation task must name the column of its answers; give `answer`")
        if self.kind == "generation" and self.calibrate:
            raise ValueError("a generation task has no classes to calibrate; leave `calibrate` out")
        if self.kind == "classification" and self.answer is not None:
            raise ValueError("only a generation task has answers; leave `answer` out, or set `kind: generation`")
        return self


class PromptConfig(_Block):
    """The soft prompt: how many rows, and the public sentence whose embeddings, repeated, it begins as."""

    tokens: int = Field(default=100, ge=1)
    text: str = Field(default="Read the text and say in one word what fits it best.", min_length=1)


class DistillationConfig(_Block):
    """How the provider's model becomes a small one: which layers stay, and what it then learns from the large one.

    `layers` lists the layers to keep, or `first` and `last` count them. `corpus`: public texts. `ce`, `lm` and `cosine`
    weigh the three losses. `top_k`: how many of the large model's probabilities are kept a token, with the rest as one
    further value. `untie`: gives a model whose head is its embedding table a head of its own, so that the head stays
    frozen while the embeddings learn. `flat_window`: stop when the mean loss of so many steps fell by less than the
    share `flat_tolerance` since the window before; 0 never stops early. `precision`: of the small model's products
    while it learns; its weights, the losses and the optimizer stay in float32. `store`: where students lie by content.
    """

    layers: tuple[int, ...] | None = None
    first: int = Field(default=2, ge=0)
    last: int = Field(default=2, ge=0)
    corpus: DataConfig | None = None
    length: int = Field(default=128, ge=4)
    pack: bool = True
    epochs: float = Field(default=1.0, ge=0)
    batch_size: int = Field(default=16, ge=1)
    learning_rate: float = Field(default=2.5e-4, gt=0)
    warmup: float = Field(default=0.05, ge=0, lt=1)
    clip: float = Field(default=5.0, gt=0)
    temperature: float = Field(default=2.0, gt=0)
    ce: float = Field(default=5.0, ge=0)
    lm: float = Field(default=2.0, ge=0)
    cosine: float = Field(default=1.0, ge=0)
    top_k: int = Field(default=64, ge=1)
    masked_share: float = Field(default=0.15, gt=0, lt=1)
    untie: bool = True
    flat_window: int = Field(default=0, ge=0)
    flat_tolerance: float = Field(default=0.002, ge=0)
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    store: str | None = None
    seed: int = 0


class TuningConfig(_Block):
    """How the prompt is tuned on the small model, in logical batches. `private: false` promises nothing."""

    private: bool = True
    epochs: float = Field(default=20.0, gt=0)
    batch_size: int = Field(default=256, ge=1)
    microbatch_size: int | Literal["auto"] = "auto"
    learning_rate: float = Field(default=1e-3, gt=0)
    optimizer: Literal["adam", "sgd"] = "adam"
    schedule: Literal["constant", "linear"] = "constant"
    max_grad_norm: float = Field(default=1.0, gt=0)

    def steps(self, size: int) -> int:
        """Logical steps over `size` records."""
        return max(1, math.ceil(self.epochs * size / self.batch_size - 1e-9))


class TransferConfig(_Block):
    """How the provider moves a prompt to the large model, with public texts alone.

    `public`: one or several candidate sets; `choose` says which is used: the first, by public features, or by a noisy
    statistic of the private data. `samples`: texts taken of it. `variant`: both losses, "output" or "shift" alone, or
    "inference" (no prompt is made; the small model's shift is added when a text is labelled). `alpha`: the weight of
    the shift, as a number, from labelled "public" texts, or by the "heuristic" from two noisy private counts.
    `match`: over which tokens the two models are compared; `initial`: the prompt begins as the "text" in the large
    model's own embeddings, or as the small one's prompt through a linear map ("mapped").
    """

    public: tuple[DataConfig, ...] = Field(min_length=1)
    choose: Literal["first", "features", "statistic"] = "first"
    samples: int = Field(default=128, ge=1)
    variant: Literal["both", "output", "shift", "inference"] = "both"
    alpha: float | Literal["public", "heuristic"] = 0.5
    temperature: float = Field(default=2.0, gt=0)
    steps: int = Field(default=2000, ge=1)
    batch_size: int = Field(default=8, ge=1)
    learning_rate: float = Field(default=1e-3, gt=0)
    match: Literal["auto", "full", "shared", "words"] = "auto"
    initial: Literal["text", "mapped"] = "text"

    @model_validator(mode="after")
    def _alpha_is_a_share(self) -> TransferConfig:
        if isinstance(self.alpha, float) and not 0 <= self.alpha <= 1:
            raise ValueError("alpha must lie in [0, 1]")
        return self


class StatisticConfig(_Block):
    """What the noisy counts (for `alpha: heuristic` and `choose: statistic`) cost, out of the run's epsilon."""

    epsilon: float = Field(default=0.5, gt=0, le=50)


class InferenceConfig(_Block):
    """How texts are perturbed before the large model is asked: token by token, at `epsilon` each, cut and padded to
    `tokens`; `queries` is how many texts a person may send, for the composed promise.
    """

    mechanism: str | None = None
    options: dict[str, Any] = Field(default_factory=dict)
    tokens: int = Field(default=32, ge=1)
    epsilon: float = Field(default=4.0, gt=0)
    queries: int = Field(default=1, ge=1)


class MembershipConfig(_Block):
    """LiRA against the tuned prompt, at the client and never shown: `models` prompts on random halves (0: none)."""

    models: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _enough_models(self) -> MembershipConfig:
        if self.models and (self.models < 4 or self.models % 2):
            raise ValueError(
                f"models must be 0 or an even number of at least 4, got {self.models}: prompts are tuned in pairs, "
                "each record in one of the two, and a pair is judged by the others"
            )
        return self


class POSTConfig(MethodConfig):
    """POST's settings. Every number here is public.

    `baselines` are further arms. They and POST's own are scored by the client's `local_target`, the large model in its
    own process; `missing_models` says what happens without it (skip tells so in the notes).
    """

    task: TaskConfig = TaskConfig()
    prompt: PromptConfig = PromptConfig()
    distillation: DistillationConfig = DistillationConfig()
    tuning: TuningConfig = TuningConfig()
    transfer: TransferConfig
    statistic: StatisticConfig = StatisticConfig()
    inference: InferenceConfig = InferenceConfig()
    membership: MembershipConfig = MembershipConfig()
    baselines: tuple[Arm, ...] = (Arm.ZERO_SHOT, Arm.STUDENT, Arm.DIRECT, Arm.INFERENCE)
    missing_models: Literal["refuse", "skip"] = "refuse"

    @model_validator(mode="after")
    def _queries_are_possible(self) -> POSTConfig:
        if Arm.QUERIES in self.baselines and not self.can_query:
            raise ValueError(
                f"the baseline `{Arm.QUERIES}` asks with perturbed texts behind the transferred prompt: give "
                "inference.mechanism, and a transfer.variant that makes a prompt; or leave the baseline out"
            )
        return self

    @model_validator(mode="after")
    def _public_sets_have_what_is_read_of_them(self) -> POSTConfig:
        transfer, answer = self.transfer, self.task.answer
        reads_labels = transfer.variant == "both" and transfer.alpha == "public"
        if reads_labels and answer is None and any(block.label is None for block in transfer.public):
            raise ValueError(
                "transfer.alpha: public needs public texts with the task's own labels, and a block of transfer.public "
                "has no `label`; name their column, or give alpha as a number"
            )
        reads_answers = answer is not None and transfer.variant != "inference"
        if reads_answers and any(answer not in block.columns for block in transfer.public):
            raise ValueError(
                f"transfer.public: a generation task reads public answers in the column {answer!r}; list it under "
                "`columns` of every block"
            )
        return self

    @model_validator(mode="after")
    def _counts_of_a_private_prompt(self) -> POSTConfig:
        if not self.tuning.private and self.weighs:
            raise ValueError(
                "transfer.alpha must not be `heuristic` where tuning.private is false: one record moves such a prompt, "
                "and with it every answer that would be counted; give alpha as a number or `public`"
            )
        return self

    @property
    def weighs(self) -> bool:
        """Whether alpha follows from two noisy private counts."""
        return self.transfer.alpha == "heuristic" and self.transfer.variant == "both"

    @property
    def arms(self) -> tuple[Arm, ...]:
        """Every arm, in the order of tables; POST's own is the inference-time one where no prompt is made."""
        wanted = {*self.baselines, self.own}
        if self.transfer.variant == "inference":
            wanted -= {Arm.POST}
        return tuple(arm for arm in Arm if arm in wanted)

    @property
    def can_query(self) -> bool:
        """Whether there is a prompt to ask behind, and something that perturbs what is asked."""
        return self.inference.mechanism is not None and self.transfer.variant != "inference"

    @property
    def own(self) -> Arm:
        """The arm of what the run hands over in the end."""
        return Arm.INFERENCE if self.transfer.variant == "inference" else Arm.POST

    @property
    def counts(self) -> bool:
        """Whether private counts are released beside the prompt."""
        return self.weighs or self.votes

    @property
    def votes(self) -> bool:
        """Whether the public set is chosen by private votes."""
        several = len(self.transfer.public) > 1 and self.transfer.variant != "inference"  # which reads no set
        return self.transfer.choose == "statistic" and several
