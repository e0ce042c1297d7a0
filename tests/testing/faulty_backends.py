"""Backends and datasets with one planted fault each; test_suites.py demands that their suites find it."""

import json
from types import SimpleNamespace

import numpy as np
from privkt_datasets.json_rows import JsonDataset

from privkt.contracts import Backend, BackendError, Capability, DataSource, Generation, Rows, Score
from privkt.plugins import BackendSpec, DatasetSpec, PluginManager, hookimpl
from privkt.privacy import RefusedInput
from privkt.testing import BackendSuite, DatasetSuite

WORKS = frozenset({Capability.GENERATE, Capability.SCORE, Capability.EMBED})


class Parrot(Backend):
    """Says the prompt's letters in turn."""

    declared = WORKS

    @property
    def name(self):
        return "parrot"

    def check(self):
        if strange := set(self.options) - {"batch_size", "down"}:
            raise RefusedInput(f"parrot: unknown option {min(strange)!r}; it takes batch_size")

    def probe(self):
        if self.options.get("down"):
            raise BackendError("parrot: does not answer")
        return WORKS

    def generate(self, prompts, sampling, progress=None):
        self.probe()
        return [self.say(prompt, sampling) for prompt in prompts]

    def say(self, prompt, sampling):
        letters = (prompt * 8)[: sampling.max_new_tokens]
        cut = min((letters.index(s) for s in sampling.stop if s in letters), default=None)
        return Generation(letters[:cut], "length" if cut is None else "stop", len(letters[:cut]))

    def score(self, prompts, continuations):
        if len(prompts) != len(continuations):
            raise ValueError("parrot.score: continuations must be as many as prompts")
        return [Score(-float(len(c)), len(c)) for c in continuations]

    def embed(self, texts):
        rows = np.array([[1.0, len(text)] for text in texts], dtype=np.float32).reshape(-1, 2)
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)


class WrongOrder(Parrot):
    def generate(self, prompts, sampling, progress=None):
        return super().generate(sorted(prompts), sampling)


class SeesItsNeighbours(Parrot):
    def generate(self, prompts, sampling, progress=None):
        return super().generate([p + str(len(prompts)) for p in prompts], sampling)


class BatchMatters(Parrot):
    def say(self, prompt, sampling):
        return super().say(prompt + str(self.options.get("batch_size")), sampling)


class IgnoresStop(Parrot):
    def say(self, prompt, sampling):
        letters = (prompt * 8)[: sampling.max_new_tokens]
        return Generation(letters, "length", len(letters))


class TalksOn(Parrot):
    def say(self, prompt, sampling):
        said = super().say(prompt, sampling)
        return Generation(said.text, said.finish, said.tokens + 1)


class ProbesNothing(Parrot):
    declared = WORKS | {Capability.CHAT}

    def probe(self):
        return self.declared


class NamesItsFolder(Parrot):
    @property
    def name(self):
        return "/models/parrot"


class LongRows(Parrot):
    def embed(self, texts):
        return super().embed(texts) * 2


class SwallowsGaps(Parrot):
    def train(self, examples, recipe, **options):
        return None


class ShowsThePrompt(Parrot):
    def generate(self, prompts, sampling, progress=None):
        if self.options.get("down"):
            raise BackendError(f"parrot: no answer to {prompts}")
        return super().generate(prompts, sampling)


class TakesAnyOption(Parrot):
    def check(self):
        return None


def manager_with(hook, spec):
    manager = PluginManager((), {})
    manager.register(SimpleNamespace(**{hook: hookimpl(lambda: [spec])}))
    return manager


class ParrotSuite(BackendSuite):
    name = "parrot"
    expected = WORKS
    backend_class = Parrot

    def manager(self):
        kinds = tuple(map(str, self.backend_class.declared))
        spec = BackendSpec("parrot", f"{__name__}:{self.backend_class.__name__}", "Parrots.", kinds)
        return manager_with("privkt_backends", spec)

    def options(self):
        return {"batch_size": 2}

    def bad_options(self):
        return {"unknown": ({"btch_size": 1}, "unknown option 'btch_size'")}

    def unreachable(self):
        return self.make(down=True)


class Strips(JsonDataset):
    def load(self):
        rows = super().load()
        return Rows(tuple(text.strip() for text in rows.text), rows.label, rows.ids, rows.columns)


class ShowsTheLabel(JsonDataset):
    def load(self):
        try:
            return super().load()
        except RefusedInput as error:
            raise RefusedInput(f"{error}: {self.read().columns.get('label')}") from None


class ChainsTheParser(JsonDataset):
    def _parsed(self, text, first_line):
        try:
            return json.loads(text)
        except ValueError as error:
            raise RefusedInput(f"data (json): line {first_line} is not valid JSON") from error


class RowsSuite(DatasetSuite):
    name = "rows"
    dataset_class = JsonDataset

    def manager(self):
        return manager_with("privkt_datasets", DatasetSpec("rows", f"{__name__}:{self.dataset_class.__name__}"))

    def write(self, folder, columns):
        path = folder / "rows.jsonl"
        names = list(columns)
        rows = (dict(zip(names, cells, strict=True)) for cells in zip(*columns.values(), strict=True))
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return DataSource("rows", "text", "label", path=str(path))

    def broken(self, folder):
        path = folder / "bad.jsonl"
        path.write_text('{"text": "canary-4821', encoding="utf-8")
        return {"malformed": (DataSource("rows", "text", "label", path=str(path)), "line 1")}


ORDER = "test_answers_come_in_order"
FOUND = {
    Parrot: set(),
    WrongOrder: {ORDER},
    SeesItsNeighbours: {ORDER},
    BatchMatters: {"test_the_batch_size_changes_no_greedy_answer"},
    IgnoresStop: {"test_a_stop_string_ends_the_answer_before_it"},
    TalksOn: {"test_answers_are_no_longer_than_asked"},
    ProbesNothing: {
        "test_the_probe_finds_what_works_and_no_more_than_is_declared",
        "test_a_failure_does_not_repeat_the_prompt",
    },
    NamesItsFolder: {"test_its_name_is_public"},
    LongRows: {"test_embeddings_are_unit_rows_in_order"},
    SwallowsGaps: {"test_what_is_missing_says_so"},
    ShowsThePrompt: {"test_a_failure_does_not_repeat_the_prompt"},
    TakesAnyOption: {"test_bad_options_are_refused_by_name"},
}
for _class in FOUND:
    globals()[f"Test{_class.__name__}"] = type(f"Test{_class.__name__}", (ParrotSuite,), {"backend_class": _class})
FOUND = {f"Test{_class.__name__}": tests for _class, tests in FOUND.items()}

ROWS = {
    JsonDataset: set(),
    Strips: {"test_rows_come_back_as_they_were_written"},
    ShowsTheLabel: {
        "test_an_undeclared_label_is_named_by_its_row",
        "test_a_value_that_the_label_map_lacks_is_named_by_its_row",
    },
    ChainsTheParser: {"test_a_broken_file_is_refused"},
}
for _class in ROWS:
    globals()[f"Test{_class.__name__}"] = type(f"Test{_class.__name__}", (RowsSuite,), {"dataset_class": _class})
    FOUND[f"Test{_class.__name__}"] = ROWS[_class]
