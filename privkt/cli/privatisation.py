"""`privkt privatize`: a file of private texts into noisy ones."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from privkt.cli.errors import Interrupted
from privkt.cli.option_words import options_of
from privkt.cli.output import err, out, print_json, progress

if TYPE_CHECKING:
    from privkt.contracts.tokens import TokenMechanism
    from privkt.privacy import RefusedInput
    from privkt.privacy.ledger import Left
    from privkt.runtime.privatisation import Account, Privatised
    from privkt.synthesis.privatiser import TextPrivatiser
    from privkt.synthesis.vocabulary import Vocabulary


@dataclass(frozen=True)
class Asked:
    """What the command was told about mechanism and vocabulary."""

    mechanism: str
    epsilon: str
    level: str
    k_max: int
    options: Sequence[str]
    model: str | None
    vectors: Path | None
    keep_words: Path | None
    expose_length: bool


@dataclass(frozen=True)
class _Checked:
    """What the command's words mean: epsilon of each position, the mechanism's options, the words that stay."""

    shares: Sequence[float]
    options: Mapping[str, Any]
    keep: tuple[str, ...]


def privatize(
    file: Path,
    asked: Asked,
    account: Account,
    *,
    text: str,
    id: str | None,
    output: Path | None,
    keep_ids: bool,
    plan: bool,
    leaks: bool,
    as_json: bool,
) -> None:
    """Reads, checks, says what it costs, charges, draws and writes."""
    from privkt.privacy import RefusedInput
    from privkt.runtime.privatisation import PrivateTexts
    from privkt.runtime.vocabularies import read_vocabulary

    if output is None and not plan:
        raise RefusedInput("privatize: say where the noisy texts go with --output OUT.jsonl, or ask for --plan alone")
    checked = _checked(asked)
    texts = PrivateTexts(file, account, text=text, id=id)
    if output is not None and not plan:
        texts.need_place(output)
    try:
        if not as_json:
            err.print("reading the vocabulary ...")
        vocabulary = read_vocabulary("privatize: vocabulary", model=asked.model, vectors=asked.vectors)
        if not as_json:
            slow = vocabulary.size > 8192 and not any(word.startswith("calibrate=") for word in asked.options)
            hint = "; enumerating its pairs may take minutes, which `--option calibrate=range` does without"
            err.print(f"making the mechanism over {vocabulary.size} tokens{hint if slow else ''} ...", markup=False)
        privatiser = _privatiser(asked, checked, vocabulary, texts.delta)
        cost = texts.cost(privatiser)
        facts = _facts(privatiser, asked, texts.delta, cost)
        if not as_json:
            out.print(
                f"data set {account.name}: {texts.size} texts, of which number and order are public", markup=False
            )
            for line in _lines(facts):
                out.print(line, markup=False)
        for line in facts["warnings"]:
            err.print(f"[yellow]warning:[/yellow] {line}")
        if plan:
            _print_plan(facts, *texts.left(cost), as_json)
            return
        assert output is not None
        with progress(show=not as_json) as shown:
            done = texts.privatise(privatiser, output, keep_ids=keep_ids, progress=shown)
    except KeyboardInterrupt:
        raise Interrupted("what is drawn is kept; the same command goes on with the same spend") from None
    _print_done(done, facts, keep_ids, as_json)
    if leaks:
        _write_leaks(privatiser, texts.rows.text, done, as_json)


def _write_leaks(privatiser: TextPrivatiser, texts: Sequence[str], done: Privatised, as_json: bool) -> None:
    """The local report: into the private folder and on standard error, never on standard output."""
    from privkt.evaluation.leakage import leak_report
    from privkt.runtime.files import write_json

    report = leak_report(privatiser, texts, done.drawn)
    write_json(done.store / "leaks.json", report.to_json())
    if not as_json:
        for line in ("private, and covered by no guarantee:", *report.lines(), f"kept in {done.store / 'leaks.json'}"):
            err.print(line, markup=False)


def _print_plan(facts: dict[str, Any], left: Left, refusal: RefusedInput | None, as_json: bool) -> None:
    """Raises what the ledger would answer, after all else was said."""
    if as_json:
        here = {"epsilon": left.epsilon, "delta": left.delta, "refused": None if refusal is None else str(refusal)}
        print_json({**facts, "left": here})
        return
    fits = ", which is enough" if refusal is None and facts["document"] is not None else ""
    out.print(f"left in the ledger before this: {left}{fits}")
    out.print("nothing was spent")
    if refusal is not None:
        raise refusal


def _print_done(done: Privatised, facts: dict[str, Any], keep_ids: bool, as_json: bool) -> None:
    if done.cut:
        err.print(
            f"[yellow]warning:[/yellow] {done.cut} texts are longer than k_max = {facts['k_max']} tokens and were cut "
            "(private: their number crosses nowhere)"
        )
    if keep_ids:
        err.print("[yellow]warning:[/yellow] the file holds the records' ids as they are, which no guarantee covers")
    if as_json:
        print_json(
            {
                **facts,
                "output": str(done.output),
                "store": str(done.store),
                "card": str(done.card),
                "charge": done.release.charge,
                "ledger": done.statement,
                "texts": len(done.release.payload),
            }
        )
        return
    out.print(f"{len(done.release.payload)} noisy texts: {done.output}\nprivacy card: {done.card}", markup=False)
    out.print(f"private, keep it to yourself: {done.store}", markup=False)
    out.print(done.statement, markup=False)


def _checked(asked: Asked) -> _Checked:
    """All that can be refused before a text or a vocabulary is read."""
    from privkt.plugins import get_manager
    from privkt.privacy import RefusedInput
    from privkt.synthesis.token_claims import need_draws_tokens

    shares, options = _epsilons(asked.epsilon, asked.k_max), options_of("privatize", asked.options)
    if asked.level not in ("token", "document"):
        raise RefusedInput(f"privatize: --level must be token or document, got {asked.level!r}; name one of them")
    if asked.level == "document" and len(set(shares)) > 1:
        raise RefusedInput("privatize: --level document takes one epsilon, got one for each position; give one")
    need_draws_tokens("privatize", asked.mechanism)
    get_manager().check("mechanism", asked.mechanism, None, shares[0], **options)
    return _Checked(shares, options, _words(asked.keep_words) if asked.keep_words is not None else ())


def _privatiser(asked: Asked, checked: _Checked, vocabulary: Vocabulary, delta: float) -> TextPrivatiser:
    from privkt.synthesis.privatiser import TextPrivatiser
    from privkt.synthesis.token_budget import by_position, for_document
    from privkt.synthesis.token_claims import make_token_mechanism

    def make(epsilon: float) -> TokenMechanism:
        return make_token_mechanism("privatize", asked.mechanism, vocabulary.vectors, epsilon, checked.options)

    shares = checked.shares
    mechanism: TokenMechanism | Sequence[TokenMechanism]
    if asked.level == "document":
        mechanism = for_document(make, shares[0], delta, asked.k_max)
    else:
        mechanism = make(shares[0]) if len(set(shares)) == 1 else by_position(make, shares)
    padded = not asked.expose_length
    return TextPrivatiser(vocabulary, mechanism, k_max=asked.k_max, padded=padded, keep=checked.keep)


def _epsilons(said: str, k_max: int) -> list[float]:
    """`8` for every position, or `8x16,4x48`: epsilon times how many positions, first to last."""
    from privkt.privacy import RefusedInput

    found: list[float] = []
    try:
        if "," not in said and "x" not in said:
            found = [float(said)] * k_max
        else:
            for part in said.split(","):
                value, listed, times = part.partition("x")
                if listed and not (times.isdecimal() and int(times)):
                    raise ValueError
                found += [float(value)] * (int(times) if listed else 1)
    except ValueError:
        raise RefusedInput("privatize: --epsilon is a number, or a list like 8x16,4x48; write one of them") from None
    if not all(math.isfinite(e) and e > 0 for e in found):
        raise RefusedInput("privatize: --epsilon must be finite and > 0 at every position; ask for some")
    if len(found) != k_max:
        raise RefusedInput(
            f"privatize: --epsilon must name as many positions as --k-max, got {len(found)} for {k_max}; correct one"
        )
    return found


def _words(path: Path) -> tuple[str, ...]:
    from privkt.privacy import RefusedInput

    try:
        return tuple(word for line in path.read_text(encoding="utf-8").splitlines() if (word := line.strip()))
    except (OSError, UnicodeDecodeError):
        raise RefusedInput(f"privatize: --keep-words needs a UTF-8 file of a word a line at {path}; mend it") from None


def _facts(privatiser: TextPrivatiser, asked: Asked, delta: float, cost: Any) -> dict[str, Any]:
    from privkt.evaluation.law import unchanged
    from privkt.privacy import accounting, zcdp_event
    from privkt.privacy.ceiling import utility_ceiling
    from privkt.privacy.guarantee import weakness

    weak = weakness(cost.guarantee.epsilon, "text")
    about: dict[str, Any] = {
        "mechanism": privatiser.mechanisms[0].name,
        "vocabulary": {"tokens": privatiser.vocabulary.size, "identity": privatiser.vocabulary.identity},
        "k_max": privatiser.k_max,
        "padded": privatiser.padded,
        "asked": {"epsilon": asked.epsilon, "level": asked.level},
        "charged": {"statement": str(cost.guarantee), "guarantee": cost.guarantee.to_json()},
        "warnings": [] if weak is None else [weak],
    }
    if not cost.guarantee.is_private:  # whatever the law of a drawn token is, it bounds nothing then
        return {**about, "token": None, "document": None, "unchanged": None, "ceiling": {}}
    certificates = privatiser.certificates
    worst = max(certificates, key=lambda c: c.epsilon)
    pure, rho = sum(c.epsilon for c in certificates), sum(c.rho for c in certificates)
    exact = [c.epsilon_exact for c in certificates]
    ceilings = {m: utility_ceiling(worst.epsilon, m) for m in (privatiser.vocabulary.size, 1000, 100)}
    kept = unchanged(privatiser.mechanisms)
    return {
        **about,
        "token": {
            "epsilon_range": max(c.epsilon_range for c in certificates),
            "epsilon_exact": None if None in exact else max(e for e in exact if e is not None),
            "rho": max(c.rho for c in certificates),
        },
        "document": {
            "pure_epsilon": pure,
            "rho": rho,
            "zcdp_epsilon": accounting.epsilon(zcdp_event(rho), delta) if math.isfinite(rho) else math.inf,
            "delta": delta,
        },
        "unchanged": None if kept is None else {"share": kept.share, "tokens_read": kept.read},
        "ceiling": {str(m): value for m, value in ceilings.items()},
    }


def _lines(facts: dict[str, Any]) -> list[str]:
    from privkt.privacy.guarantee import rounded_up

    token, document, size = facts["token"], facts["document"], facts["vocabulary"]["tokens"]
    said = facts["asked"]
    nominal = f"{facts['mechanism']} over {size} tokens, nominal epsilon {said['epsilon']} a {said['level']}"
    if document is None:
        return [nominal, f"  nothing is promised: {facts['charged']['statement']}"]
    exact = "not enumerated" if token["epsilon_exact"] is None else rounded_up(token["epsilon_exact"])
    lines = [
        nominal,
        f"  a token costs: epsilon = {rounded_up(token['epsilon_range'])} for any input (range), "
        f"{exact} on this table (exact), rho = {rounded_up(token['rho'])}",
        f"  a document of {facts['k_max']} tokens{'' if facts['padded'] else ' at most'} costs: epsilon = "
        f"{rounded_up(document['pure_epsilon'])} pure; epsilon = {rounded_up(document['zcdp_epsilon'])} at delta = "
        f"{rounded_up(document['delta'], 3)} by rho = {rounded_up(document['rho'])}",
        f"  charged: {facts['charged']['statement']}",
    ]
    if (kept := facts["unchanged"]) is not None:
        read = "all" if kept["tokens_read"] == size else f"{kept['tokens_read']} random"
        lines.append(
            f"  this mechanism draws the very token again with a chance of {kept['share']:.3g}: the mean over {read} "
            "tokens of the vocabulary, each counted alike"
        )
    ceilings = ", ".join(
        f"{rounded_up(value, 3)} ({'the very token' if m == str(size) else f'one of {m} groups of tokens'})"
        for m, value in facts["ceiling"].items()
        if int(m) <= size
    )
    lines.append(
        "  upper bounds, no forecast: the least lucky token's meaning survives at most so often, whatever the "
        f"mechanism: {ceilings}"
    )
    return lines
