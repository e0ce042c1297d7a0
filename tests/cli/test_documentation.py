"""docs/cli.md: every command has its section, its options as they are, and examples that really run.

`python tests/cli/test_documentation.py` writes the tables of options anew.
"""

import json
import re
import shlex
import shutil
import sys
from pathlib import Path

import pytest
import typer
import yaml

from privkt.cli.app import app

PAGE = Path(__file__).parents[2] / "docs" / "cli.md"
HEAD = "| option | what it does |\n| --- | --- |\n"


def commands(command=None, name="privkt"):
    """{full name: click command} of everything that can be called."""
    command = command or typer.main.get_command(app)
    inner = getattr(command, "commands", {})
    found = {} if name == "privkt" else {name: command}
    for word, sub in inner.items():
        found |= commands(sub, f"{name} {word}")
    return found


def table(command):
    """The options of a command as the page's table."""
    rows = []
    for parameter in command.params:
        if parameter.name == "help":
            continue
        shown = parameter.name.upper() if parameter.param_type_name == "argument" else ", ".join(parameter.opts)
        rows.append(f"| `{shown}` | {parameter.help} |\n")
    return HEAD + "".join(rows) if rows else ""


def section(page, name):
    """The part of the page under a command's heading."""
    return page.split(f"\n## {name}\n")[1].split("\n## ")[0]


@pytest.mark.parametrize("name", commands())
def test_every_command_has_its_options_and_an_example(name):
    part = section(PAGE.read_text(encoding="utf-8"), name)
    assert table(commands()[name]) in part
    assert f"\n{name}" in part.replace("$ ", "")


def test_no_command_is_made_up():
    named = re.findall(r"^## (privkt .*)$", PAGE.read_text(encoding="utf-8"), re.M)
    assert named == list(commands())


def examples():
    """(command, output) of each console block."""
    blocks = re.findall(r"```console\n\$ (.*?)\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.S)
    return dict(blocks)


@pytest.mark.parametrize("line", examples())
def test_examples_say_what_the_page_says(line, cli, tmp_path, model, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(model, tmp_path / "small-model")
    raw = yaml.safe_load(re.search(r"```yaml\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.S)[1])
    (tmp_path / "reviews.yaml").write_text(yaml.safe_dump(raw))
    for name in ("train", "test"):
        rows = [{"text": f"visit {i} was fine", "label": ("negative", "positive")[i % 2]} for i in range(48)]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    said = cli(*shlex.split(line)[1:])
    assert said.code == 0, said.err
    # As in doctest, `...` stands for anything; how columns are spaced is left to the terminal.
    parts = (re.escape(part) for part in " ".join(examples()[line].split()).split("..."))
    assert re.fullmatch(".*".join(parts), " ".join(said.out.split())), said.out


@pytest.mark.parametrize("line", re.findall(r"^privkt .*$", PAGE.read_text(encoding="utf-8"), re.M))
def test_other_examples_parse(line):
    words = shlex.split(line)[1:]
    own = 2 if words[0] in ("budget", "audit") and words[1:] else 1
    commands()[" ".join(["privkt", *words[:own]])].make_context("privkt", words[own:])


def write_tables():
    """Puts the present options into the page."""
    page = PAGE.read_text(encoding="utf-8")
    for name, command in commands().items():
        part = section(page, name)
        if not table(command):
            continue  # a command of commands
        begin = part.index(HEAD)
        rows = re.match(r"(?:\|.*\n)*", part[begin:])[0]
        page = page.replace(part, part.replace(rows, table(command), 1))
    PAGE.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    sys.exit(write_tables())
