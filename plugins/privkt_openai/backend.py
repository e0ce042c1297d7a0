"""The `openai` backend: a model behind any server that speaks the OpenAI HTTP interface."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

from privkt.contracts import (
    Backend,
    BackendContext,
    BackendError,
    Capability,
    CapabilityMissing,
    Generation,
    Progress,
    ProgressTask,
    Prompt,
    Sampling,
    Score,
)
from privkt_openai.answers import read_embeddings, read_generation, read_token_logprobs
from privkt_openai.cache import AnswerCache
from privkt_openai.failures import ServerFailed, explain
from privkt_openai.options import Options, parse_options, read_key
from privkt_openai.probing import Findings, Probe, forget_findings
from privkt_openai.questions import Question, endpoints_for, question, repetitions
from privkt_openai.scoring import echo_body, read_score, read_score_by_count, score_question
from privkt_openai.transport import Traffic, Transport

if TYPE_CHECKING:
    import numpy as np

T = TypeVar("T")
R = TypeVar("R")
EMBEDDED_AT_ONCE = 64


class OpenAIBackend(Backend):
    """Asks a server: concurrently, in order, again where that helps, and never twice for the same answer.

    With a cache folder every answer is on disk before it counts; the same call after a crash asks for the missing
    ones alone. A caller who wants other draws for the same prompts passes another `Sampling.seed`.
    Guarantee: no error, log line or cache key holds text of a prompt, of an answer, or the API key.
    """

    remote = True
    declared = frozenset({Capability.GENERATE, Capability.CHAT, Capability.SCORE, Capability.EMBED})

    def __init__(self, options: Mapping[str, Any], context: BackendContext) -> None:
        super().__init__(options, context)
        self.traffic = Traffic()
        self._cache = AnswerCache(context.cache)

    @cached_property
    def _parsed(self) -> Options:
        return parse_options(self.options, self.context.role)

    @property
    def name(self) -> str:
        return self._parsed.public_model

    def check(self) -> None:
        """Refuses malformed options, plain http to other machines and a missing key; no request is sent."""
        read_key(self._parsed, self.context.role)

    def probe(self) -> frozenset[Capability]:
        """What works, asked once in a process for each server and model; `findings` has the details."""
        return self.findings().capabilities

    def findings(self) -> Findings:
        """All that the probe found out. Raises BackendError when no endpoint answers usefully."""

        async def work(transport: Transport) -> Findings:
            found = await Probe(transport, self._parsed).everything()
            if found.refusal is not None and not found.capabilities:
                raise ServerFailed(found.refusal, 1)
            return found

        return self._run(work)

    def generate(
        self, prompts: Sequence[Prompt], sampling: Sampling, progress: Progress | None = None
    ) -> list[Generation]:
        """One answer a prompt, in order; equal prompts in one call get separate answers.

        Raises: BackendError when a request fails for good; what was answered until then is in the cache.
        """
        options, counts = self._parsed, repetitions(prompts)
        asked = [
            [question(prompt, sampling, options, endpoint, count) for endpoint in endpoints_for(prompt, options)]
            for prompt, count in zip(prompts, counts, strict=True)
        ]
        self._cache.refresh()
        found = [next(filter(None, map(self._stored_generation, row)), None) for row in asked]
        missing = [place for place, generation in enumerate(found) if generation is None]
        task = self._task(progress, f"Asking {self.name}", found)

        async def work(transport: Transport) -> None:
            completions = await self._strings_go_to_completions(transport, [asked[place] for place in missing])

            async def one(place: int) -> None:
                wanted = asked[place][0] if completions else asked[place][-1]
                found[place] = await self._generation(transport, wanted)
                task.advance(1)

            await self._each(transport, missing, one)

        if missing:
            self._run(work, lambda: self._stored(found), task)
        return [generation for generation in found if generation is not None]

    def score(self, prompts: Sequence[str], continuations: Sequence[str]) -> list[Score]:
        """Log-likelihood of each continuation after its prompt, in nats.

        Edge cases: a token across the boundary counts as the continuation's.
        Raises: CapabilityMissing when the server does not return log-probabilities of a given text.
        """
        if len(prompts) != len(continuations):
            raise ValueError(
                f"score: continuations must have {len(prompts)} rows like prompts, got {len(continuations)}"
            )
        pairs = list(zip(prompts, continuations, strict=True))
        found: list[Score | None] = [None] * len(pairs)
        self._cache.refresh()
        task = self._task(None, f"Scoring with {self.name}", found)

        async def work(transport: Transport) -> None:
            most = await Probe(transport, self._parsed).echo()
            if most is None:
                raise self._cannot(Capability.SCORE, "log-probabilities of a given text (echo with logprobs)")

            async def one(place: int) -> None:
                found[place] = await self._score(transport, *pairs[place], most)
                task.advance(1)

            await self._each(transport, range(len(pairs)), one)

        if pairs:
            self._run(work, lambda: self._stored(found), task)
        return [score for score in found if score is not None]

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """Sentence embeddings by /embeddings, [n, d] float32, rows of norm 1.

        Edge cases: no texts give shape [0, 0], as the width is the server's to say.
        Raises: CapabilityMissing when the server has no embeddings for this model.
        """
        import numpy as np

        model = self._parsed.embedding_model or self._parsed.model
        batches = [list(texts[at : at + EMBEDDED_AT_ONCE]) for at in range(0, len(texts), EMBEDDED_AT_ONCE)]
        found: list[np.ndarray | None] = [None] * len(batches)

        async def work(transport: Transport) -> None:
            if not await Probe(transport, self._parsed).embeddings():
                raise self._cannot(Capability.EMBED, "embeddings (name such a model in `embedding_model`)")

            async def one(place: int) -> None:
                batch = batches[place]
                found[place] = await transport.ask(
                    "embeddings",
                    {"model": model, "input": batch},
                    lambda reply: read_embeddings(reply, len(batch)),
                )

            await self._each(transport, range(len(batches)), one)

        if batches:
            self._run(work)
        rows = [matrix for matrix in found if matrix is not None]
        return np.concatenate(rows) if rows else np.zeros((0, 0), dtype=np.float32)

    async def _generation(self, transport: Transport, wanted: Question) -> Generation:
        generation = await transport.ask(
            wanted.endpoint,
            wanted.request(),
            lambda reply: read_generation(reply, wanted.endpoint, wanted.stop),
        )
        self.traffic.tokens += generation.tokens
        value = {"text": generation.text, "finish": generation.finish, "tokens": generation.tokens}
        self._cache.put(wanted.key, value)
        return generation

    async def _score(self, transport: Transport, prompt: str, continuation: str, most: str) -> Score:
        wanted = score_question(prompt, continuation, self._parsed, most)
        stored = self._cache.get(wanted.key)
        if stored is not None:
            self.traffic.from_cache += 1
            return Score(logprob=float(stored["logprob"]), tokens=int(stored["tokens"]))

        def read(reply: Any) -> tuple[Score | None, Any]:
            return read_score(reply, prompt, continuation), reply

        score, reply = await transport.ask("completions", wanted.request(), read)
        if score is None:
            body = echo_body(prompt, self._parsed, most)
            alone = await transport.ask("completions", body, lambda given: len(read_token_logprobs(given)[0]))
            score = read_score_by_count(reply, alone - int(most), int(most))
        self._cache.put(wanted.key, {"logprob": score.logprob, "tokens": score.tokens})
        return score

    async def _strings_go_to_completions(self, transport: Transport, missing: Sequence[Sequence[Question]]) -> bool:
        undecided = any(len(choices) > 1 for choices in missing)
        return not undecided or await Probe(transport, self._parsed).completions()

    async def _each(self, transport: Transport, places: Sequence[int], one: Callable[[int], Awaitable[None]]) -> None:
        """Runs `one` for every place, `concurrency` at a time.

        After the first failure nothing new is asked, but what is in flight may still come in: it was paid for.
        """
        waiting = iter(places)
        errors: list[Exception] = []

        async def worker() -> None:
            for place in waiting:
                if errors:
                    return
                try:
                    await one(place)
                except (ServerFailed, BackendError) as error:
                    errors.append(error)
                    transport.stop()

        async with asyncio.TaskGroup() as group:
            for _ in range(min(self._parsed.concurrency, len(places))):
                group.create_task(worker())
        if errors:
            raise errors[0]

    def _run(
        self,
        work: Callable[[Transport], Awaitable[R]],
        stored: Callable[[], str] = str,
        task: ProgressTask | None = None,
    ) -> R:
        """Runs `work` with an open transport to its end, also from inside somebody's event loop (a notebook)."""
        options, role = self._parsed, self.context.role
        key = read_key(options, role)

        def on_wait(note: str) -> None:
            if task is not None:
                task.advance(0, note)

        async def whole() -> R:
            async with Transport(options, key, self.traffic, on_wait) as transport:
                return await work(transport)

        try:
            return _complete(whole)
        except ServerFailed as failed:
            forget_findings(options)
            error = explain(failed, options, role, stored())
        # Raised outside the handler, so that nothing of a request hangs on the error as its context.
        raise error

    def _stored_generation(self, wanted: Question) -> Generation | None:
        value = self._cache.get(wanted.key)
        if value is None:
            return None
        text, finish, tokens = value.get("text"), value.get("finish"), value.get("tokens")
        if isinstance(text, str) and isinstance(finish, str) and isinstance(tokens, int):
            return Generation(text, finish, tokens)
        return None

    def _stored(self, found: Sequence[object]) -> str:
        done = sum(item is not None for item in found)
        if not self._cache.kept:
            return f"{done} of {len(found)} answers came, none is stored as this run has no cache"
        return f"{done} of {len(found)} answers are stored and will not be asked again"

    def _task(self, progress: Progress | None, title: str, found: Sequence[object]) -> ProgressTask:
        task = (progress or self.context.progress).task(title, len(found), "rows")
        cached = sum(item is not None for item in found)
        if cached:
            self.traffic.from_cache += cached
            task.advance(cached, "from the cache")
        return task

    def _cannot(self, capability: Capability, what: str) -> CapabilityMissing:
        return CapabilityMissing(
            f"backend 'openai' (models.{self.context.role}) at {self._parsed.base_url} cannot {capability}: the probe "
            f"got no {what} for model {self.name!r}; a server such as vLLM may have it, `backend: transformers` does"
        )


def _complete(work: Callable[[], Awaitable[T]]) -> T:
    async def whole() -> T:
        return await work()

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(whole())
    outcome: list[T] = []
    errors: list[BaseException] = []

    def thread() -> None:
        try:
            outcome.append(asyncio.run(whole()))
        except BaseException as error:
            errors.append(error)

    runner = threading.Thread(target=thread, name="privkt-openai", daemon=True)
    runner.start()
    runner.join()
    if errors:
        raise errors[0]
    return outcome[0]
