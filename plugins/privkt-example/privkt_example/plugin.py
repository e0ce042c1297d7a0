"""What this plugin declares. Factories are strings, so that listing plugins imports nothing of what they make."""

from __future__ import annotations

from privkt.plugins import BackendSpec, DatasetSpec, MechanismSpec, MethodSpec, ReleaseSummary, ReleaseVetoed, hookimpl

LARGEST_RELEASE = 1 << 30


@hookimpl
def privkt_mechanisms() -> tuple[MechanismSpec, ...]:
    return (
        MechanismSpec(
            name="coin",
            factory="privkt_example.coin:Coin",
            summary="A yes-no answer, true with integer odds.",
            guarantee="pure",
            unit="record",
            neighbouring="local",
            proof="Warner 1965, Randomized response; the ratio of both answers is the odds",
        ),
        MechanismSpec(
            name="dice",
            factory="privkt_example.dice:Dice",
            summary="A word for each word: itself with integer odds, else any other.",
            guarantee="pure",
            unit="token",
            neighbouring="local",
            proof="every word's weights are `odds` once and 1 else, with one total: no ratio of two exceeds `odds`",
        ),
    )


@hookimpl
def privkt_methods() -> tuple[MethodSpec, ...]:
    return (
        MethodSpec(
            name="label-tally",
            factory="privkt_example.tally:LabelTally",
            summary="How many texts of each label there are, from noisy labels.",
            paper="Warner 1965, Randomized response: a survey technique for eliminating evasive answer bias",
        ),
    )


@hookimpl
def privkt_backends() -> tuple[BackendSpec, ...]:
    return (
        BackendSpec(
            name="bigram",
            factory="privkt_example.bigram:Bigram",
            summary="A word-pair model of the texts it is given.",
            capabilities=("generate", "score"),
        ),
    )


@hookimpl
def privkt_datasets() -> tuple[DatasetSpec, ...]:
    return (DatasetSpec("lines", "privkt_example.lines:Lines", "One text a line, its label before a tab."),)


@hookimpl
def privkt_before_release(summary: ReleaseSummary) -> None:
    if summary.size_bytes > LARGEST_RELEASE:
        raise ReleaseVetoed(f"a release must stay under {LARGEST_RELEASE} bytes, got {summary.size_bytes}")
