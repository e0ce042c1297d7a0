"""The commands, their options and their exit codes: 0 done, 1 failed while running (resumable), 2 refused input."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from privkt import __version__

app = typer.Typer(
    name="privkt",
    help="Move knowledge between large and small language models while private text stays private.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
budget_app = typer.Typer(help="What each private data set has spent, and what is left.", no_args_is_help=False)
app.add_typer(budget_app, name="budget")
audit_app = typer.Typer(help="What is lost at least, beside what is promised. Spends nothing.", no_args_is_help=True)
app.add_typer(audit_app, name="audit")

DataChanged = Annotated[
    bool, typer.Option("--data-changed", help="The data behind a name changed; its account goes on.")
]
NewNameConfirmed = Annotated[
    bool,
    typer.Option(
        "--new-name-confirmed",
        help="These rows are counted under another name too; what both ledgers spend adds up.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document for a program to read.")]
ConfigFile = Annotated[Path, typer.Argument(help="A YAML config.", show_default=False)]
RunFolder = Annotated[Path, typer.Argument(help="A run directory.", show_default=False)]


def run() -> None:
    """Runs a command and turns refusals and failures into exit codes, without tracebacks and without private text."""
    from privkt.cli.errors import exit_code_of

    try:
        app(prog_name="privkt")
    except Exception as error:
        sys.exit(exit_code_of(error))


def _version(show: bool) -> None:
    if show:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    return None


@app.command()
def quickstart(
    output: Annotated[Path | None, typer.Option(help="Run directory; a new one under ./runs by default.")] = None,
    data: Annotated[
        Path | None,
        typer.Option(help="Your own JSONL or CSV with columns text and label, instead of made-up records."),
    ] = None,
    labels: Annotated[
        str | None, typer.Option(help="With --data: its labels, with commas between them. They are public.")
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(help="Name of the data set's ledger with --data; the file's stem by default."),
    ] = None,
    model: Annotated[
        Path | None, typer.Option(help="Folder of the small model that generates (Hugging Face format).")
    ] = None,
    encoder: Annotated[Path | None, typer.Option(help="Folder of the encoder that is the task model.")] = None,
    base_url: Annotated[
        str | None,
        typer.Option(help="An OpenAI-compatible server with a larger model, e.g. http://127.0.0.1:8000/v1."),
    ] = None,
    llm: Annotated[str | None, typer.Option(help="The model's name at --base-url.")] = None,
    epsilon: Annotated[float, typer.Option(help="Epsilon of the private training.")] = 8.0,
    size: Annotated[int, typer.Option(help="How many records to make up.", min=100)] = 500,
    seed: Annotated[
        int | None, typer.Option(help="Seed of the made-up records and of everything but the noise; drawn by default.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Fetch the small models without asking.")] = False,
) -> None:
    """Watch private records go through FDKT, end to end, on this machine."""
    from privkt.cli.quickstart import quickstart as go

    go(
        output=output, data=data, labels=labels, name=name, model=model, encoder=encoder,
        base_url=base_url, llm=llm, epsilon=epsilon, size=size, seed=seed, yes=yes,
    )  # fmt: skip


@app.command()
def plan(
    config: ConfigFile,
    data_changed: DataChanged = False,
    new_name_confirmed: NewNameConfirmed = False,
    json: Json = False,
) -> None:
    """Check a config and its data, and say what a run will spend, ask and send. Spends nothing."""
    from privkt.cli.running import plan as go

    go(config, as_json=json, data_changed=data_changed, new_name_confirmed=new_name_confirmed)


@app.command("run")
def run_command(
    config: Annotated[Path | None, typer.Argument(help="A YAML config.", show_default=False)] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Run directory.")] = None,
    resume: Annotated[Path | None, typer.Option(help="Finish the run in this directory.")] = None,
    review: Annotated[
        bool, typer.Option("--review", help="Show what is about to cross and wait for yes or no.")
    ] = False,
    data_changed: DataChanged = False,
    new_name_confirmed: NewNameConfirmed = False,
    force: Annotated[
        bool,
        typer.Option("--force", help="Let something without a guarantee cross; the ledger records an infinite spend."),
    ] = False,
) -> None:
    """Run a method from a config, or finish an interrupted run."""
    from privkt.cli.running import run as go

    go(
        config, output=output, resume=resume, review=review, data_changed=data_changed,
        new_name_confirmed=new_name_confirmed, force=force,
    )  # fmt: skip


@app.command()
def compare(
    config: ConfigFile,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Run directory.")] = None,
    resume: Annotated[Path | None, typer.Option(help="Finish the comparison in this directory.")] = None,
    seeds: Annotated[int | None, typer.Option(help="Seeds 0 to N-1 instead of the config's.", min=1)] = None,
    data_changed: DataChanged = False,
    new_name_confirmed: NewNameConfirmed = False,
) -> None:
    """Run a method with every baseline of its page beside it: mean and deviation over seeds."""
    from privkt.cli.running import compare as go

    go(
        config, output=output, resume=resume, seeds=seeds, data_changed=data_changed,
        new_name_confirmed=new_name_confirmed,
    )  # fmt: skip


@app.command()
def predict(
    run_directory: RunFolder,
    file: Annotated[
        Path,
        typer.Argument(help="Texts: JSONL or CSV with a text column, or one text a line; blank lines are none."),
    ],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="A JSONL file; standard output by default.")
    ] = None,
    text: Annotated[
        str | None, typer.Option(help="Name of the text column; that of the run's own data by default.")
    ] = None,
    client: Annotated[str | None, typer.Option(help="Whose model, when the run had several clients.")] = None,
) -> None:
    """Label texts with a run's final model."""
    from privkt.cli.running import predict as go

    go(run_directory, file, output=output, text=text, client=client)


@app.command()
def privatize(
    file: Annotated[Path, typer.Argument(help="Private texts: JSONL, CSV or Parquet.", show_default=False)],
    epsilon: Annotated[
        str, typer.Option(help="Epsilon of a token; or one for each position, like 8x16,4x48.", show_default=False)
    ],
    name: Annotated[str, typer.Option(help="Name of the data set, whose ledger is charged.", show_default=False)],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The JSONL file of noisy texts to write.")
    ] = None,
    mechanism: Annotated[str, typer.Option(help="Which token mechanism draws.")] = "exponential",
    level: Annotated[str, typer.Option(help="What --epsilon is for: a token, or a whole document.")] = "token",
    k_max: Annotated[
        int, typer.Option(help="Tokens of every document: longer ones are cut, shorter ones padded. Public.", min=1)
    ] = 64,
    model: Annotated[
        str | None,
        typer.Option(help="Vocabulary: a public model's folder, or a name that `privkt quickstart` knows."),
    ] = None,
    vectors: Annotated[
        Path | None, typer.Option(help="Vocabulary: a text file of public word vectors (GloVe, word2vec).")
    ] = None,
    option: Annotated[
        list[str] | None, typer.Option(help="KEY=VALUE for the mechanism; may come several times.")
    ] = None,
    text: Annotated[str, typer.Option(help="Name of the text column.")] = "text",
    id: Annotated[
        str | None, typer.Option(help="Name of the column of record ids; the row's number by default.")
    ] = None,
    delta: Annotated[float | None, typer.Option(help="Delta of a document; min(1e-5, 1/(10 N)) by default.")] = None,
    expose_length: Annotated[
        bool, typer.Option("--expose-length", help="Do not pad: the guarantee is then conditional on lengths.")
    ] = False,
    keep_words: Annotated[
        Path | None, typer.Option(help="A file of words that stay as they are. Nothing is promised then.")
    ] = None,
    keep_ids: Annotated[
        bool, typer.Option("--keep-ids", help="Write the ids beside the texts, as they are; nothing covers them.")
    ] = False,
    cap_epsilon: Annotated[float | None, typer.Option(help="Cap of a new ledger; what this costs by default.")] = None,
    cap_delta: Annotated[float | None, typer.Option(help="Cap of delta of a new ledger.")] = None,
    plan: Annotated[bool, typer.Option("--plan", help="Say what it would cost, and stop. Spends nothing.")] = False,
    leaks: Annotated[
        bool,
        typer.Option("--leaks", help="Compare with the private texts: a report that stays in OUT.private."),
    ] = False,
    data_changed: DataChanged = False,
    new_name_confirmed: NewNameConfirmed = False,
    force: Annotated[
        bool,
        typer.Option("--force", help="Write texts without a guarantee; the ledger records an infinite spend."),
    ] = False,
    json: Json = False,
) -> None:
    """Replace every token of private texts by a random one, and charge whole documents. Resumes by the same command."""
    from privkt.cli.privatisation import Asked
    from privkt.cli.privatisation import privatize as go
    from privkt.runtime.privatisation import Account

    go(
        file,
        Asked(mechanism, epsilon, level, k_max, option or (), model, vectors, keep_words, expose_length),
        Account(
            name, delta, cap_epsilon, cap_delta, data_changed=data_changed, new_name_confirmed=new_name_confirmed,
            force=force,
        ),
        text=text, id=id, output=output, keep_ids=keep_ids, plan=plan, leaks=leaks, as_json=json,
    )  # fmt: skip


@app.command()
def show(
    run_directory: RunFolder,
    texts: Annotated[
        bool, typer.Option("--texts", help="Print the texts that crossed instead, decoded from their very bytes.")
    ] = False,
    json: Json = False,
) -> None:
    """Print what a run did: scores, what was spent, what crossed."""
    from privkt.cli.reports import show as go
    from privkt.cli.reports import show_texts

    (show_texts if texts else go)(run_directory, as_json=json)


@app.command()
def report(run_directory: RunFolder) -> None:
    """Write report.html and report.json of a run anew and print their paths."""
    from privkt.cli.reports import report as go

    go(run_directory)


@app.command()
def plugins(
    kind: Annotated[
        str | None, typer.Option(help="Only one kind: mechanism, method, backend, dataset, evaluator.")
    ] = None,
    json: Json = False,
) -> None:
    """List plugins, what they provide, and what is broken."""
    from privkt.cli.listing import plugins as go

    go(kind, as_json=json)


@app.command()
def doctor(json: Json = False) -> None:
    """Say what was built, what is missing, and why."""
    from privkt.cli.listing import doctor as go

    go(as_json=json)


@budget_app.callback(invoke_without_command=True)
def _budget(context: typer.Context, json: Json = False) -> None:
    if context.invoked_subcommand is None:
        from privkt.cli.budgets import overview

        overview(as_json=json)


@budget_app.command("show")
def budget_show(name: Annotated[str, typer.Argument(help="The data set's name.")], json: Json = False) -> None:
    """Every entry of one ledger, verified."""
    from privkt.cli.budgets import entries

    entries(name, as_json=json)


@budget_app.command("raise")
def budget_raise(
    name: Annotated[str, typer.Argument(help="The data set's name.")],
    epsilon: Annotated[float, typer.Option(help="The new cap.")],
    reason: Annotated[str, typer.Option(help="Why; recorded in the ledger for good.")],
    delta: Annotated[float | None, typer.Option(help="The new cap of delta.")] = None,
) -> None:
    """Raise a ledger's cap, with a recorded reason."""
    from privkt.cli.budgets import raise_cap

    raise_cap(name, epsilon, delta, reason)


@audit_app.command("mechanism")
def audit_mechanism(
    name: Annotated[str, typer.Argument(help="A mechanism of `privkt plugins --kind mechanism`.", show_default=False)],
    epsilon: Annotated[float, typer.Option(help="The epsilon to ask it for.")] = 3.0,
    model: Annotated[
        str | None,
        typer.Option(help="Words: a public model's folder, or a name that `privkt quickstart` knows."),
    ] = None,
    vectors: Annotated[
        Path | None, typer.Option(help="Words: a text file of public vectors; a made-up table by default.")
    ] = None,
    option: Annotated[
        list[str] | None, typer.Option(help="KEY=VALUE for the mechanism; may come several times.")
    ] = None,
    prior: Annotated[
        Path | None,
        typer.Option(help="Texts whose word frequencies the attacker knows too. Public, or local: they stay here."),
    ] = None,
    text: Annotated[str, typer.Option(help="Name of the text column of --prior.")] = "text",
    reader: Annotated[
        str | None,
        typer.Option(help="A public language model's folder: it reads noisy texts of --prior again, in context."),
    ] = None,
    values: Annotated[
        str | None, typer.Option(help="Two neighbouring inputs to tell apart, as '[0, 1]'; chosen by default.")
    ] = None,
    samples: Annotated[int, typer.Option(help="Draws of each input.", min=100)] = 20_000,
    confidence: Annotated[float, typer.Option(help="How sure the lower bound must be.")] = 0.99,
    pairs: Annotated[int, typer.Option(help="How many pairs of words to tell apart.", min=1)] = 4,
    json: Json = False,
) -> None:
    """Attack and audit one mechanism: epsilon from above and from below. Ends with 1 when a promise is broken."""
    from privkt.cli.audits import AuditAsked
    from privkt.cli.audits import audit_mechanism as go

    go(
        AuditAsked(
            name, epsilon, option or (), model, vectors, prior, text, values, samples, confidence, pairs, reader
        ),
        as_json=json,
    )  # fmt: skip
