"""Steps 2 to 5 at the server, for one client: instructions, responses, and the adapters taught by them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from privkt.contracts import (
    Adapter,
    Backend,
    BackendError,
    ClientId,
    Example,
    Parcel,
    ServerSite,
    Texts,
    public_digest,
)
from privkt.plugins import get_manager
from privkt.privacy import RefusedInput
from privkt.synthesis.asking import uses_chat
from privkt_knowledgesg.answering import answer
from privkt_knowledgesg.arms import Arm
from privkt_knowledgesg.config import KnowledgeSGConfig, SeedsConfig
from privkt_knowledgesg.pairs import Pair, PairTemplate
from privkt_knowledgesg.scoring import label_in
from privkt_knowledgesg.seeds import Seed, public_seeds
from privkt_knowledgesg.writing import Writer, Written

RESPONSE, ARM, TEXTS = "response", "arm", "texts"
_APART = 104_729  # seeds of generators that must not meet; a round of writing adds a multiple of another prime


def load_seeds(config: SeedsConfig | None) -> tuple[Seed, ...]:
    """The public seeds of a config; the source is the only thing that is asked about them."""
    from privkt.runtime.preflight import source_of

    if config is None:
        return ()
    rows = get_manager().create("dataset", config.source, source_of(config)).load()
    if config.response is not None and config.response not in rows.columns:
        raise RefusedInput(
            f"knowledgesg.seeds.response: the seeds must have a column {config.response!r}, and `columns` does not "
            "list it; add it there"
        )
    return public_seeds(rows, config.response)


class Server:
    """One client's part at the server. Everything it sees is the adapter that crossed, public, or its own.

    `name` is the folder of that client's answers in the step's folder, `names` those of its labels, if it declares any.
    """

    def __init__(
        self,
        site: ServerSite,
        config: KnowledgeSGConfig,
        template: PairTemplate,
        name: str,
        names: Mapping[str, str],
    ) -> None:
        self.site, self.config, self.template = site, config, template
        wants_labels = config.fields.response == "label" and config.professional.as_label
        self.names = dict(names) if wants_labels else None
        self.folder = site.folder / name
        self.professional = site.model("professional")
        self.chat = uses_chat(self.professional, config.professional.layout)
        self.seeds = load_seeds(config.seeds)
        # What no adapter shapes is the same for every client; where all of it teaches one adapter, each has its own.
        clients = sorted(public_digest(client)[:12] for client in site.clients)
        self.public_seed = site.seed + (_APART * clients.index(name) if config.together else 0)
        self.report: dict[str, Any] = {}

    def answered(self, adapter: Adapter) -> dict[Arm, tuple[Pair, ...]]:
        """The training pairs of every served arm."""
        arms = [arm for arm in self.config.arms if arm.is_served]
        shape, found = self.config.writing.shape, dict[Arm, tuple[Pair, ...]]()
        with self._with(adapter) as model:
            own = self._written(model, "adapter", pairs=shape == "pair")
            if Arm.DP_INSTRUCTIONS in arms:
                found[Arm.DP_INSTRUCTIONS] = self._responded(model, own.pairs, "adapter")
            if Arm.DP_PAIRS in arms:
                pairs = own if shape == "pair" else self._written(model, "pairs", pairs=True)
                found[Arm.DP_PAIRS] = _with_response(pairs.pairs)
        if {Arm.SELF_INSTRUCT, Arm.NO_PRIVATE} & set(arms):
            bare = self.site.model("base")
            public = self._written(bare, "base", pairs=shape == "pair", seed=self.public_seed)
            if Arm.SELF_INSTRUCT in arms:
                found[Arm.SELF_INSTRUCT] = self._responded(bare, public.pairs, "base")
            bare.release_memory()
            if Arm.NO_PRIVATE in arms:
                found[Arm.NO_PRIVATE] = self._taught(public.pairs, Arm.NO_PRIVATE)
        if Arm.SEEDS in arms:
            found[Arm.SEEDS] = self._taught([seed.pair for seed in self.seeds], Arm.SEEDS)
        found[Arm.KNOWLEDGESG] = self._taught(own.pairs, Arm.KNOWLEDGESG)
        if not found[Arm.KNOWLEDGESG]:
            raise BackendError(
                "knowledgesg: at least one written instruction must pass the filters and be answered, got none; of "
                f"{len(own.pairs)} that passed, dropped: {self._dropped()}. `privkt report` has every count. Loosen "
                "`filters`, raise writing.max_tokens or writing.attempts, or, "
                "where answers and no instructions were dropped, change `professional`; then give the corrected config "
                "with --resume (writing again costs no budget)"
            )
        self.report["pairs"] = {arm.value: len(pairs) for arm, pairs in found.items()}
        if self.names is not None:  # a class that the professional model hardly ever names cannot be learnt from it
            self.report["labels"] = {arm.value: labels_of(pairs, self.names) for arm, pairs in found.items()}
        self.report["licence of the professional model"] = self.config.professional.licence or "not given"
        self.report["layout"] = "chat" if self.chat else "continue"
        return found

    def _dropped(self) -> str:
        """Why KnowledgeSG's own instructions or their answers were dropped, with the counts."""
        filters, answers = self.report["written: adapter"]["filter"], self.report[f"answered: {Arm.KNOWLEDGESG.value}"]
        why = answers["dropped"] or filters["dropped"]
        return ", ".join(f"{count} {reason}" for reason, count in sorted(why.items())) or "none"

    def _written(self, model: Backend, name: str, *, pairs: bool, seed: int | None = None) -> Written:
        writer = Writer(
            self.config,
            self.template,
            self.seeds,
            self.professional,
            chat=self.chat,
            seed=self.site.seed if seed is None else seed,
            progress=self.site.progress,
        )
        made = writer.write(model, self.folder / name, pairs=pairs, title=f"writing instructions ({name})")
        self.report[f"written: {name}"] = made.to_json()
        return made

    def _responded(self, model: Backend, pairs: Sequence[Pair], name: str) -> tuple[Pair, ...]:
        writer = Writer(
            self.config, self.template, (), None, chat=False, seed=self.site.seed, progress=self.site.progress
        )
        return _with_response(writer.respond(model, pairs, self.folder / name / "responses.jsonl"))

    def _taught(self, pairs: Sequence[Pair], arm: Arm) -> tuple[Pair, ...]:
        made, filtered = answer(
            pairs,
            self.template,
            self.professional,
            self.config.professional,
            chat=self.chat,
            seed=self.site.seed,
            journal=self.folder / f"answers-{arm.value}.jsonl",
            progress=self.site.progress,
            title=f"asking the professional model: {arm.heading}",
            names=self.names,
        )
        self.report[f"answered: {arm.value}"] = filtered.to_json()
        return made

    @contextmanager
    def _with(self, adapter: Adapter) -> Iterator[Backend]:
        model = self.site.model("base").with_weights(adapter)
        try:
            yield model
        finally:
            model.release_memory()


def train_student(
    base: Backend,
    pairs: Sequence[Pair],
    template: PairTemplate,
    config: KnowledgeSGConfig,
    *,
    adapter: Adapter | None,
    shown: int,
    folder: Path,
    seed: int,
    progress: Any,
) -> Adapter:
    """Step 5: an adapter after ordinary training on pairs, loss on responses; from `adapter`, if one is given.

    `shown`: examples that the training sees, passes over `pairs` until there are so many.
    Guarantee: none of its own: what it promises is what its pairs and `adapter` do.
    """
    start = base if adapter is None else base.with_weights(adapter)
    # Half an example less, so that rounding up gives `shown` whatever a division leaves behind the point.
    recipe = replace(config.student.recipe(seed), epochs=(shown - 0.5) / len(pairs))
    trained = start.train(examples(pairs, template), recipe, folder=folder, progress=progress)
    if not isinstance(trained, Adapter):
        raise TypeError(f"knowledgesg: backend {base.name!r} must give an Adapter for a recipe with LoRA")
    return trained


def examples(pairs: Sequence[Pair], template: PairTemplate) -> list[Example]:
    """Training examples with the loss on responses."""
    return [template.example(pair, "response") for pair in pairs]


def to_texts(arms: dict[Arm, tuple[Pair, ...]]) -> Texts:
    """Pairs of all arms as one table, the instruction as its text."""
    rows = [(arm.value, pair) for arm, pairs in arms.items() for pair in pairs]
    return Texts(
        tuple(pair.question for _, pair in rows),
        None,
        {RESPONSE: tuple(pair.response for _, pair in rows), ARM: tuple(arm for arm, _ in rows)},
    )


def labels_of(pairs: Iterable[Pair], names: Mapping[str, str]) -> dict[str, int]:
    """How many responses say each label, by name, in the order of `names`; one that says none is not counted."""
    counts = Counter(label_in(pair.response, names) for pair in pairs)
    return {name: counts[label] for label, name in names.items()}


def from_texts(texts: Texts, arm: Arm) -> tuple[Pair, ...]:
    """The pairs of one arm."""
    rows = zip(texts.text, texts.columns[RESPONSE], texts.columns[ARM], strict=True)
    return tuple(Pair(question, response) for question, response, own in rows if own == arm.value)


def _with_response(pairs: Sequence[Pair]) -> tuple[Pair, ...]:
    return tuple(pair for pair in pairs if pair.response.strip())


class Teaching:
    """Step 5 for every client: adapters taught by what was written and answered for it, or for all clients together.

    Every arm's training sees equally many examples, so that none is worse for having fewer pairs to pass over: as many
    as were asked for, not as KnowledgeSG has, or arms without private data would depend on the released adapter. Those
    that come from it start where KnowledgeSG does.
    """

    def __init__(self, site: ServerSite, config: KnowledgeSGConfig, template: PairTemplate) -> None:
        self.site, self.config, self.template = site, config, template
        self._names = {client: public_digest(client)[:12] for client in site.clients}

    def parcel(self, client: ClientId) -> Parcel:
        """The adapter of every served arm, by the arm's name, and under `texts` what KnowledgeSG's own learnt from.

        Edge cases: an arm without any pair has no adapter; the client counts it as not measured.
        """
        items: dict[str, Texts | Adapter] = {}
        for arm in self.config.arms:
            if arm.is_served and (pairs := self._pairs(client, arm)):
                items[arm.value] = self._taught(client, arm, pairs)
        texts: Texts = self.site.state.load(f"pairs-{self._names[client]}")
        return Parcel({**items, TEXTS: texts})

    def _pairs(self, client: ClientId, arm: Arm) -> tuple[Pair, ...]:
        of = sorted(self.site.clients) if self._shares else [client]
        tables = [self.site.state.load(f"pairs-{self._names[one]}") for one in of]
        return tuple(dict.fromkeys(pair for table in tables for pair in from_texts(table, arm)))

    def _taught(self, client: ClientId, arm: Arm, pairs: Sequence[Pair]) -> Adapter:
        shares = self._shares
        start = None
        if arm.is_released and self.config.student.start == "adapter":
            start = self.site.state.load(f"adapter-{self._names[client]}")
        asked = self.config.writing.count * (len(self._names) if shares else 1)
        folder = self.site.folder / ("together" if shares else self._names[client]) / arm.value
        return train_student(
            self.site.model("base"),
            pairs,
            self.template,
            self.config,
            adapter=start,
            shown=math.ceil(self.config.student.epochs * asked),
            folder=folder,
            seed=self.site.seed,
            progress=self.site.progress,
        )

    @property
    def _shares(self) -> bool:
        """Whether all clients get the same adapters; a training is then found finished by all but one."""
        return self.config.together
