"""Backends: what a language model can be asked to do, in this process or on a server."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from privkt.contracts.messages import Adapter, Model, SoftPrompt
from privkt.contracts.progress import NoProgress, Progress
from privkt.privacy import Budget, Release

if TYPE_CHECKING:
    import numpy as np


class Capability(StrEnum):
    """What a backend may offer; `probe()` finds out what it really does."""

    GENERATE = "generate"
    CHAT = "chat"
    SCORE = "score"
    EMBED = "embed"
    TRAIN = "train"
    TRAIN_PRIVATE = "train-private"
    CLASSIFY = "classify"
    ADAPTERS = "adapters"


class BackendError(RuntimeError):
    """A model could not be asked or answered uselessly: the run stops with exit code 1 and can be resumed."""


class CapabilityMissing(BackendError):
    """The backend does not do what was asked of it; the message names the capability and who has it."""


@dataclass(frozen=True)
class ChatTurn:
    """One message of a conversation: role is system, user or assistant."""

    role: str
    content: str


Prompt = str | tuple[ChatTurn, ...]


@dataclass(frozen=True)
class Sampling:
    """How text is drawn. `temperature` 0 is greedy. `seed` fixes the draw where the backend can."""

    max_new_tokens: int = 64
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    stop: tuple[str, ...] = ()
    seed: int | None = None
    repetition_penalty: float = 1.0


@dataclass(frozen=True)
class Generation:
    """One answer: the new text alone, and why it ended ("stop" | "length")."""

    text: str
    finish: str = "stop"
    tokens: int = 0


@dataclass(frozen=True)
class Score:
    """Log-likelihood of a continuation after its prompt, in nats, over `tokens` tokens."""

    logprob: float
    tokens: int


@dataclass(frozen=True)
class Example:
    """One training example.

    task "causal-lm": the loss is on `completion` after `prompt` (and, if `train_on_prompt`, on the prompt too).
    task "classification": `prompt` is the text, `completion` the label's name. `weight` scales its loss (public
    trainings only: a private training refuses weights other than 1).
    """

    prompt: str
    completion: str
    weight: float = 1.0


@dataclass(frozen=True)
class Recipe:
    """How a model is trained. Batch is the logical batch.

    `lora` (rank, alpha, dropout, targets) trains an adapter. Without it `trainable` says which part moves: "all",
    "head" (a classifier over frozen features, which are computed once), or "last:K" (head and last K layers).
    `epochs` counts expected passes; steps = ceil(epochs * size / batch_size), from the declared size when private.
    """

    task: str = "causal-lm"
    epochs: float = 3.0
    batch_size: int = 32
    learning_rate: float = 5e-4
    max_length: int = 128
    microbatch_size: int | str = "auto"
    max_grad_norm: float = 1.0
    weight_decay: float = 0.0
    warmup: float = 0.0
    schedule: str = "constant"
    train_on_prompt: bool = False
    labels: tuple[str, ...] = ()
    lora: Mapping[str, Any] | None = None
    trainable: str = "all"
    seed: int = 0


@dataclass(frozen=True)
class Privacy:
    """What turns a training into a private one: the budget and whose it is.

    `size` is the declared N. `run_id` and `purpose` identify the charge, so that a resumed run does not pay twice.
    """

    budget: Budget
    size: int
    run_id: str
    purpose: str
    fingerprint: str
    data_set_id: str
    data_changed: bool = False


@dataclass(frozen=True)
class BackendContext:
    """What the runtime tells a backend it makes: its role, its side, where it may cache, how it shows progress."""

    role: str = "model"
    side: str = "server"
    cache: Path | None = None
    progress: Progress = field(default_factory=NoProgress)


class Backend(ABC):
    """A language model behind one interface. Subclasses implement what their `declared` capabilities name.

    `remote`: text given to it leaves this process (a client site refuses such a backend for private text).
    Construction is cheap: weights are loaded, servers asked, on first use.
    """

    remote: bool = False
    declared: frozenset[Capability] = frozenset()

    def __init__(self, options: Mapping[str, Any], context: BackendContext) -> None:
        self.options = dict(options)
        self.context = context

    @property
    @abstractmethod
    def name(self) -> str:
        """A public name of the model for reports and cards: no path of this machine."""

    @property
    def context_tokens(self) -> int | None:
        """How many tokens a prompt and its answer may have together; None where that is not known beforehand."""
        return None

    def count_tokens(self, texts: Sequence[str]) -> list[int] | None:
        """How many tokens each text is as a prompt; None where the model's tokens are not known here."""
        return None

    def check(self) -> None:
        """Refuses unusable options before any budget is spent (RefusedInput): a missing folder, a malformed URL."""
        return None

    @abstractmethod
    def probe(self) -> frozenset[Capability]:
        """The capabilities that really work, found with fixed public strings; raises BackendError when none answers."""

    def generate(
        self, prompts: Sequence[Prompt], sampling: Sampling, progress: Progress | None = None
    ) -> list[Generation]:
        """One answer a prompt, in order. A prompt of ChatTurns uses the model's chat template."""
        raise self._missing(Capability.GENERATE)

    def score(self, prompts: Sequence[str], continuations: Sequence[str]) -> list[Score]:
        """Log-likelihood of each continuation after its prompt."""
        raise self._missing(Capability.SCORE)

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """Sentence embeddings, [n, d] float32, rows of norm 1."""
        raise self._missing(Capability.EMBED)

    def train(
        self,
        examples: Sequence[Example],
        recipe: Recipe,
        *,
        folder: Path,
        privacy: Privacy | None = None,
        progress: Progress | None = None,
    ) -> Release[Adapter] | Release[Model] | Adapter | Model:
        """Trains a copy; the backend itself is unchanged. `folder` holds checkpoints and resumes.

        Guarantee: with `privacy`, the result is a Release whose charge was accepted by the ledger before the
        first step. Without, it is not private.
        """
        raise self._missing(Capability.TRAIN)

    def classify(self, texts: Sequence[str], labels: Sequence[str]) -> np.ndarray:
        """Class probabilities, [n, len(labels)] float64, from trained weights (see `with_weights`)."""
        raise self._missing(Capability.CLASSIFY)

    def with_weights(self, weights: Adapter | SoftPrompt | Model) -> Backend:
        """The same backend with these weights in place."""
        raise self._missing(Capability.ADAPTERS)

    def weights_folder(self) -> Path:
        """The model's whole weights in Hugging Face format on this machine, fetched if they must be.

        For methods that work inside a model (soft prompts, layer selection): they load copies of their own from it.
        """
        raise CapabilityMissing(
            f"backend {self.name!r} (role {self.context.role!r}): this method works on a model's own weights, and the "
            "backend has none on this machine; use the backend transformers for this role"
        )

    def release_memory(self) -> None:
        """Frees loaded weights; the next use loads them again."""
        return None

    def _missing(self, capability: Capability) -> CapabilityMissing:
        return CapabilityMissing(
            f"backend {self.name!r} (role {self.context.role!r}) cannot {capability}: it declares "
            f"{', '.join(sorted(self.declared)) or 'nothing'}; choose another backend for this role "
            f"(`privkt plugins --kind backend` lists them)"
        )
