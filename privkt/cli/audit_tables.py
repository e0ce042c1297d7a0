"""What `privkt audit` prints."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from rich.markup import escape
from rich.table import Table

from privkt.cli.output import out, visible

if TYPE_CHECKING:
    from privkt.evaluation.mechanism_report import MechanismReport
    from privkt.evaluation.reconstruction import Reconstruction
    from privkt.synthesis.vocabulary import Vocabulary


def print_mechanism(
    report: MechanismReport,
    table: str,
    texts: int,
    vocabulary: Vocabulary | None,
    again: Reconstruction | None = None,
) -> None:
    """Epsilon from above, from enumeration and from below; then attacks; then the verdict."""
    over = "" if vocabulary is None else f" over {vocabulary.size} words ({table})"
    out.print(f"[bold]{escape(report.name)}[/bold]{escape(over)}, nominal epsilon {report.nominal:g}")
    out.print(str(report.guarantee), markup=False)
    out.print()
    out.print(_epsilons(report, _shown(vocabulary)))
    if report.attacks is not None:
        out.print()
        out.print(_attacks(report))
    if again is not None:
        out.print(
            f"\nread again by a language model, {again.tokens} tokens of {again.texts} texts: {again.context:.1%} "
            f"named right; {again.unigram:.1%} by law and word frequencies alone, {again.blind:.1%} blind, "
            f"{again.unchanged:.1%} came out unchanged"
        )
    if texts:
        out.print(
            f"\nthe prior was counted in {texts} texts, taken to be public or to stay here: what it says is about them"
        )
    out.print()
    _verdict(report)
    out.print("nothing was spent; every input was made up or drawn from a prior, no private record was read")


def _epsilons(report: MechanismReport, shown: Callable[[Any], str]) -> Table:
    from privkt.privacy.guarantee import rounded_down, rounded_up

    table = Table("epsilon", "", "what it is", box=None, pad_edge=False)
    table.add_row("nominal", f"{report.nominal:g}", "what was asked for")
    if report.certificate is None:
        claimed = rounded_up(report.guarantee.epsilon)
        table.add_row("promised", claimed, "the guarantee, from above")
    else:
        exact = report.certificate.epsilon_exact
        table.add_row(
            "certificate, range",
            rounded_up(report.certificate.epsilon_range),
            "from above: any input, by weights alone",
        )
        table.add_row(
            "certificate, exact",
            "none" if exact is None else rounded_up(exact),
            "from above: this table, enumerated by the mechanism",
        )
    told = "not known" if report.truth is None else rounded_up(report.truth)
    what = "the law of every word, enumerated here" if report.attacks is not None else "the audited inputs, enumerated"
    table.add_row("truth", told, what)
    found = report.audit
    worst = max(found.pairs, key=lambda one: one.lower)
    at = f" at delta = {found.delta:g}" if found.delta else ""
    best = f", the best of {len(found.pairs)} pairs" if len(found.pairs) > 1 else ""
    table.add_row(
        "lower bound",
        rounded_down(found.lower, 3),
        f"from below, at confidence {found.confidence:g}{at}: {worst.hits} against {worst.misses} of {worst.draws} "
        f"draws of {shown(worst.pair[0])} / {shown(worst.pair[1])}{best}",
    )
    if report.losses is not None and len(report.losses.losses):
        losses = report.losses
        share = losses.share_above(report.nominal)
        style = "red" if share and not report.guarantee.is_private else ""
        whole = "all" if losses.words == losses.size else f"{losses.words} random"
        table.add_row(
            "pairs above nominal",
            f"{share:.1%}",
            f"of {len(losses.losses)} pairs of {whole} words, enumerated; the worst loses "
            f"{_loss(losses.worst)}; {losses.own_share_above(report.nominal):.1%} where the word itself comes out",
            style=style,
        )
    return table


def _loss(value: float) -> str:
    return "everything (inf)" if math.isinf(value) else f"{value:.3g}"


def _attacks(report: MechanismReport) -> Table:
    assert report.attacks is not None
    first = report.attacks.attacks[0]
    counts = [str(one) for one in first.seen]
    draws = next(iter(first.seen.values())).trials if first.seen else 0
    table = Table(
        "attack: the right word named",
        "words from",
        *(f"in {k}, by the law" for k in counts),
        f"in 1, of {draws} draws",
        box=None,
        pad_edge=False,
    )
    for one in report.attacks.attacks:
        cells = [
            f"{one.expected[int(k)]:.2%}" if int(k) in one.expected else _counted(one.seen[int(k)]) for k in counts
        ]
        seen = one.seen[1]
        interval = f"{seen.value:.2%} ({seen.low:.2%} to {seen.high:.2%})"
        table.add_row(one.name, one.prior, *cells, interval)
    for prior, ceiling in report.attacks.ceilings.items():
        table.add_row("ceiling at this epsilon", prior, _ceiling(ceiling), style="dim")
    return table


def _ceiling(share: float) -> str:
    from privkt.privacy.guarantee import rounded_up

    return f"{rounded_up(100 * share)}%" if share < 1 else "none"


def _counted(share: Any) -> str:
    return f"({share.value:.2%} seen)"


def _verdict(report: MechanismReport) -> None:
    said = escape(str(report.audit))
    if report.untrue:
        out.print("[red]VIOLATION[/red]: the enumerated law loses more than the certificate says")
    if report.audit.violation:
        out.print(f"[red]{said}[/red]")
    elif not report.guarantee.is_private:
        out.print(escape(str(report.audit).replace("no violation was found, which proves nothing", "it promises none")))
    else:
        out.print(said)


def _shown(vocabulary: Vocabulary | None) -> Callable[[Any], str]:
    """Inputs as people read them: words by their text."""
    if vocabulary is None:
        return lambda value: escape(visible(str(value)))

    def word(value: Any) -> str:
        return escape(visible(repr(vocabulary.decode([value])) if value != vocabulary.padding else "the padding"))

    return word
