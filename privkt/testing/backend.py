"""BackendSuite: what every backend must do, whatever model or server is behind it."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from privkt.contracts import (
    Adapter,
    Backend,
    BackendContext,
    BackendError,
    Capability,
    CapabilityMissing,
    ChatTurn,
    Example,
    Model,
    Privacy,
    Recipe,
    Sampling,
)
from privkt.plugins import PluginManager, get_manager
from privkt.plugins.types import BackendSpec
from privkt.privacy import Budget, RefusedInput, Release, default_delta

CANARY = "canary-6157"


class BackendSuite(ABC):
    """Subclass in a test module: `name` finds the plugin, `options` gives a small model, `expected` what it can do.

    `batch_option` names the option that sets how many prompts go together ("" if there is none). One backend is made
    for each different set of options and kept for the class, since loading may be slow.
    """

    name: str = ""
    expected: frozenset[Capability] = frozenset()
    batch_option: str = "batch_size"
    prompts: tuple[str, ...] = ("The food", "We", "A long and winding sentence about", "Why", "My order came")
    greedy: Sampling = Sampling(max_new_tokens=8, temperature=0.0)
    score_tolerance: float = 1e-3

    @abstractmethod
    def options(self) -> Mapping[str, Any]:
        """Options of a working backend, as a config's model block would give them."""

    def bad_options(self) -> Mapping[str, tuple[Mapping[str, Any], str]]:
        """{what is wrong: (changed options, words of the refusal)}; `check` or construction must refuse each."""
        return {}

    def unreachable(self) -> Backend | None:
        """A backend whose use fails (a server that is down, a broken file), if there can be one."""
        return None

    def recipe(self) -> Recipe:
        """A training of a few steps, for backends that train."""
        return Recipe(epochs=1, batch_size=4, max_length=16, lora={"rank": 2})

    def examples(self) -> Sequence[Example]:
        """What `recipe` trains on."""
        return [Example(prompt, " was fine.") for prompt in self.prompts * 2]

    def manager(self) -> PluginManager:
        """Where the plugin is looked up."""
        return get_manager()

    def make(self, **changes: Any) -> Backend:
        """A backend of its own with these options changed."""
        return self.manager().create("backend", self.name, {**self.options(), **changes}, BackendContext())

    def shared(self, **changes: Any) -> Backend:
        """A backend that the class's tests share."""
        made: dict[str, Backend] = type(self).__dict__.get("_made", {})
        type(self)._made = made  # type: ignore[attr-defined]
        key = json.dumps({**self.options(), **changes}, sort_keys=True, default=str)
        if key not in made:
            made[key] = self.make(**changes)
        return made[key]

    def need(self, capability: Capability) -> None:
        """Skips a test of something the backend does not claim."""
        if capability not in self.expected:
            pytest.skip(f"the backend does not {capability}")

    def test_the_declaration_agrees_with_the_object(self) -> None:
        spec = self.manager().find("backend", self.name).spec
        assert isinstance(spec, BackendSpec)
        backend = self.shared()
        assert spec.summary, "the listing needs one line that says what it does"
        assert spec.remote == backend.remote
        assert {Capability(name) for name in spec.capabilities} == backend.declared
        assert self.expected <= backend.declared

    def test_the_probe_finds_what_works_and_no_more_than_is_declared(self) -> None:
        found = self.shared().probe()
        assert found == self.expected
        assert found <= self.shared().declared

    def test_its_name_is_public(self) -> None:
        name = self.shared().name
        assert name
        assert not Path(name).is_absolute(), "a name goes on cards: it must hold no path of this machine"
        assert str(Path.cwd()) not in name

    def test_working_options_pass_the_check(self) -> None:
        self.shared().check()

    def test_bad_options_are_refused_by_name(self) -> None:
        cases = self.bad_options()
        assert cases, "give at least one bad option with the words of its refusal"
        for what, (changes, words) in cases.items():
            with pytest.raises(RefusedInput) as caught:
                self.make(**changes).check()
            assert words in str(caught.value), what

    def test_nothing_in_gives_nothing_out(self) -> None:
        backend = self.shared()
        if Capability.GENERATE in self.expected:
            assert backend.generate([], self.greedy) == []
        if Capability.SCORE in self.expected:
            assert backend.score([], []) == []
        if Capability.EMBED in self.expected:
            assert backend.embed([]).shape[0] == 0

    def test_answers_come_in_order(self) -> None:
        self.need(Capability.GENERATE)
        backend = self.shared()
        alone = [backend.generate([prompt], self.greedy)[0].text for prompt in self.prompts]
        together = [answer.text for answer in backend.generate(self.prompts, self.greedy)]
        turned = [answer.text for answer in backend.generate(self.prompts[::-1], self.greedy)]
        assert together == alone, "a greedy answer must not depend on what stands beside it in the batch"
        assert turned == alone[::-1], "answers must come in the order of the prompts"

    def test_the_batch_size_changes_no_greedy_answer(self) -> None:
        self.need(Capability.GENERATE)
        if not self.batch_option:
            pytest.skip("the backend has no batch size")
        found = [
            [a.text for a in self.shared(**{self.batch_option: size}).generate(self.prompts, self.greedy)]
            for size in (1, 3)
        ]
        assert found[0] == found[1]

    def test_answers_are_no_longer_than_asked(self) -> None:
        self.need(Capability.GENERATE)
        for answer in self.shared().generate(self.prompts, Sampling(max_new_tokens=3, temperature=0.0)):
            assert answer.finish in ("stop", "length")
            assert answer.tokens <= 3

    def test_a_stop_string_ends_the_answer_before_it(self) -> None:
        self.need(Capability.GENERATE)
        whole = {p: self.shared().generate([p], self.greedy)[0].text for p in self.prompts}
        prompt, text = max(whole.items(), key=lambda item: len(item[1]))
        assert len(text) >= 4, "greedy answers are too short to test stop strings: give other prompts"
        stop = text[len(text) // 2 : len(text) // 2 + 2]
        sampling = Sampling(max_new_tokens=8, temperature=0.0, stop=(stop,))
        answer = self.shared().generate([prompt], sampling)[0]
        assert answer.text == text[: text.index(stop)]
        assert answer.finish == "stop"

    def test_a_seed_repeats_a_draw(self) -> None:
        self.need(Capability.GENERATE)
        sampling = Sampling(max_new_tokens=8, temperature=1.0, seed=7)
        first, second = (self.shared().generate(self.prompts, sampling) for _ in range(2))
        assert [a.text for a in first] == [a.text for a in second]

    def test_a_conversation_is_answered(self) -> None:
        self.need(Capability.CHAT)
        turns = (ChatTurn("system", "Be brief."), ChatTurn("user", "Name a colour."))
        assert len(self.shared().generate([turns], self.greedy)) == 1

    def test_scores_are_log_likelihoods_in_order(self) -> None:
        self.need(Capability.SCORE)
        backend, continuations = self.shared(), [" one", " two and three", " x", " yes", " no"]
        together = backend.score(self.prompts, continuations)
        alone = [backend.score([p], [c])[0] for p, c in zip(self.prompts, continuations, strict=True)]
        for score, single in zip(together, alone, strict=True):
            assert score.logprob <= 0
            assert score.tokens == single.tokens > 0
            assert score.logprob == pytest.approx(single.logprob, abs=self.score_tolerance)

    def test_scores_want_a_continuation_for_each_prompt(self) -> None:
        self.need(Capability.SCORE)
        with pytest.raises(ValueError, match="continuations"):
            self.shared().score(self.prompts[:2], [" one"])

    def test_embeddings_are_unit_rows_in_order(self) -> None:
        self.need(Capability.EMBED)
        together = self.shared().embed(self.prompts)
        assert together.dtype == np.float32
        assert together.shape[0] == len(self.prompts)
        np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-5)
        alone = np.concatenate([self.shared().embed([prompt]) for prompt in self.prompts])
        np.testing.assert_allclose(together, alone, atol=1e-4)

    def test_what_is_missing_says_so(self, tmp_path: Path) -> None:
        backend = self.shared()
        calls: dict[Capability, Callable[[], Any]] = {
            Capability.GENERATE: lambda: backend.generate(["a"], self.greedy),
            Capability.SCORE: lambda: backend.score(["a"], ["b"]),
            Capability.EMBED: lambda: backend.embed(["a"]),
            Capability.TRAIN: lambda: backend.train(self.examples(), self.recipe(), folder=tmp_path),
            Capability.CLASSIFY: lambda: backend.classify(["a"], ["x", "y"]),
            Capability.ADAPTERS: lambda: backend.with_weights(Adapter({})),
        }
        for capability, call in calls.items():
            if capability not in backend.declared:
                with pytest.raises(CapabilityMissing, match=f"cannot {capability}"):
                    call()

    def test_training_leaves_the_backend_as_it_was(self, tmp_path: Path) -> None:
        self.need(Capability.TRAIN)
        backend = self.make()
        before = [a.text for a in backend.generate(self.prompts, self.greedy)]
        trained = backend.train(self.examples(), self.recipe(), folder=tmp_path)
        assert isinstance(trained, Adapter | Model)
        assert [a.text for a in backend.generate(self.prompts, self.greedy)] == before
        if Capability.ADAPTERS in self.expected:
            assert len(backend.with_weights(trained).generate(self.prompts, self.greedy)) == len(self.prompts)
            assert [a.text for a in backend.generate(self.prompts, self.greedy)] == before

    def test_private_training_gives_a_release_within_its_budget(self, tmp_path: Path) -> None:
        self.need(Capability.TRAIN_PRIVATE)
        examples = self.examples()
        budget = Budget(epsilon=8.0, delta=default_delta(len(examples)))
        privacy = Privacy(budget, len(examples), "test-run", "suite", "fingerprint", "test-data-set")
        release = self.make().train(examples, self.recipe(), folder=tmp_path, privacy=privacy)
        assert isinstance(release, Release)
        assert release.guarantee.is_private
        assert release.guarantee.epsilon <= budget.epsilon
        assert release.guarantee.delta <= budget.delta
        assert release.provenance.data_set_id == "test-data-set"

    def test_a_failure_does_not_repeat_the_prompt(self) -> None:
        backend = self.unreachable()
        if backend is None:
            pytest.skip("the suite names no way for it to fail")
        for call in (lambda: backend.probe(), lambda: backend.generate([CANARY], self.greedy)):
            with pytest.raises(BackendError) as caught:
                call()
            assert CANARY not in str(caught.value)
