"""The client's own rationale for the true question, from the pair that came back, by the small model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from privkt.contracts import Adapter, Backend, Example, Model, Progress, Sampling
from privkt.privacy import RefusedInput
from privkt.synthesis.asking import ask
from privkt_fedcot.config import DecoderConfig, FedCoTConfig
from privkt_fedcot.fitting import fitted
from privkt_fedcot.prompts import (
    STOP,
    cleaned,
    decode_prompt,
    decoding_prompt,
    encode_prompt,
    rationale_prompt,
    worked_example,
)
from privkt_fedcot.tasks import Question, Task


@dataclass(frozen=True)
class Explained:
    """A question that may be shown, its perturbed form and that form's rationale; `plain` is that of the question."""

    question: Question
    perturbed: Question
    rationale: str
    plain: str = ""


class Decoder:
    """Turns (p, p', r') into r by the small model, in context or after training on public questions.

    Guarantee: none, and none needed: the small model runs in the client's own process, and nothing it writes crosses.
    """

    def __init__(self, backend: Backend, config: FedCoTConfig, task: Task, *, seed: int, progress: Progress) -> None:
        self.backend, self.config, self.task = backend, config, task
        self.seed, self.progress = seed, progress
        self.worked = worked_example(task, config.rationale.worked)

    def train(self, examples: Sequence[Explained], folder: Path) -> None:
        """Teaches the small model to encode and decode on public questions.

        Raises: RefusedInput, where the server made rationales for none.
        """
        settings: DecoderConfig = self.config.decoder
        usable = [e for e in examples if e.rationale and e.plain]
        if not usable:
            raise RefusedInput(
                "fedcot.decoder: a trained decoder needs public questions with rationales, got none; give public"
            )
        rows = []
        for e in usable:
            decode = Example(
                decode_prompt(e.question, e.perturbed, e.rationale, self.task),
                f" {e.plain}",
                1 - settings.encode_weight,
            )
            encode = Example(
                encode_prompt(e.question, self.task),
                f" {e.perturbed.written(self.task.labels)}",
                settings.encode_weight,
            )
            rows += [decode, encode] if settings.encode_weight > 0 else [decode]
        slm = self.config.slm
        recipe = slm.recipe(
            self.seed,
            epochs=settings.epochs,
            learning_rate=settings.learning_rate,
            max_length=2 * slm.max_length + settings.max_tokens,
        )
        trained = self.backend.train(rows, recipe, folder=folder, progress=self.progress)
        if not isinstance(trained, Model | Adapter):
            raise TypeError(
                f"backend {self.backend.name!r}: a training without privacy must give a Model or an Adapter"
            )
        self.backend = self.backend.with_weights(trained)

    def decode(self, rows: Sequence[Explained], title: str = "decoding rationales") -> list[str]:
        """One rationale a row, in order; prompts hold private text, and neither they nor a hash of them are kept.

        Edge cases: a row whose rationale is empty gets an empty one.
        """
        rows = list(rows)

        def build(i: int, question: Question) -> str:
            perturbed, rationale = rows[i].perturbed, rows[i].rationale
            if self.config.decoder.kind == "trained":
                return decode_prompt(question, perturbed, rationale, self.task)
            return decoding_prompt(question, perturbed, rationale, self.task, self.worked)

        return self._written([r.question for r in rows], build, [bool(r.rationale) for r in rows], title)

    def explain(self, questions: Sequence[Question]) -> list[str]:
        """The small model's own rationales, without any server."""

        def build(_: int, question: Question) -> str:
            return str(rationale_prompt(question, self.task, self.worked, chat=False))

        return self._written(questions, build, [True] * len(questions), "writing own rationales")

    def _written(
        self,
        questions: Sequence[Question],
        build: Callable[[int, Question], str],
        wanted: Sequence[bool],
        title: str,
    ) -> list[str]:
        settings = self.config.decoder
        prompts = fitted(self.backend, questions, build, settings.max_tokens)
        sampling = Sampling(
            max_new_tokens=settings.max_tokens, temperature=settings.temperature, stop=STOP, seed=self.seed
        )
        asked = [prompt for prompt, use in zip(prompts, wanted, strict=True) if use]
        answers = iter(ask(self.backend, asked, sampling, journal=None, progress=self.progress, title=title))
        return [cleaned(next(answers).text) if use else "" for use in wanted]
