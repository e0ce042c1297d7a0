"""Every proof page holds for the code as it is, and the check itself notices what it must."""

from pathlib import Path

import pytest

from privkt.plugins import get_manager
from privkt.testing.proofs import add_entry, main, read_page

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs" / "proofs").glob("*.md"))
RECORDED = [page for page in PAGES if "\n## Record\n" in page.read_text(encoding="utf-8")]


@pytest.mark.parametrize("page", RECORDED, ids=lambda page: page.stem)
def test_the_page_speaks_of_the_code_as_it_is(page):
    assert read_page(page, ROOT).faults() == []


def test_every_declared_proof_has_a_recorded_page():
    declared = {p.spec.proof for p in get_manager().provided("mechanism") if p.plugin.startswith("privkt:")}
    declared.discard("")
    assert {"docs/proofs/geometric.md", "docs/proofs/randomised_response.md"} <= declared
    assert declared <= {page.relative_to(ROOT).as_posix() for page in RECORDED}


PAGE = """# Noise

Source: `noise.py`.

## Precondition

A.

## Pseudocode

B.

## Postcondition

C.

## Argument

D.

## Record
"""


@pytest.fixture
def page(tmp_path):
    (tmp_path / "noise.py").write_text("x = 1\n", encoding="utf-8")
    path = tmp_path / "noise.md"
    path.write_text(PAGE, encoding="utf-8")
    return path


def faults(page):
    return "\n".join(read_page(page, page.parent).faults())


def test_a_recorded_page_holds(page):
    assert "its record is empty" in faults(page)
    add_entry(page, page.parent)
    assert faults(page) == ""


def test_code_that_moved_alone_is_a_fault(page):
    add_entry(page, page.parent)
    (page.parent / "noise.py").write_text("x = 2\n", encoding="utf-8")
    assert "read the proof against the change" in faults(page)
    with pytest.raises(ValueError, match="say why it still holds"):
        add_entry(page, page.parent)
    add_entry(page, page.parent, "a constant that no sentence speaks of")
    assert faults(page) == ""


def test_code_that_moved_with_its_proof_holds(page):
    add_entry(page, page.parent)
    (page.parent / "noise.py").write_text("x = 2\n", encoding="utf-8")
    page.write_text(page.read_text(encoding="utf-8").replace("D.", "D, and twice."), encoding="utf-8")
    add_entry(page, page.parent)
    assert faults(page) == ""


def test_a_hash_written_by_hand_without_a_review_is_a_fault(page):
    before = add_entry(page, page.parent)
    (page.parent / "noise.py").write_text("x = 2\n", encoding="utf-8")
    text = before.split(" text ")[1]
    now = read_page(page, page.parent).source
    with page.open("a", encoding="utf-8") as file:
        file.write(f"- source {now} text {text}\n")
    assert "came with an unchanged proof and no `reviewed:`" in faults(page)


def test_text_that_moved_alone_wants_a_line(page):
    add_entry(page, page.parent)
    page.write_text(page.read_text(encoding="utf-8").replace("D.", "E."), encoding="utf-8")
    assert "add a line for the new text" in faults(page)


def test_rewrapped_text_is_the_same_text(page):
    add_entry(page, page.parent)
    page.write_text(page.read_text(encoding="utf-8").replace("# Noise\n", "#  Noise \n"), encoding="utf-8")
    assert faults(page) == ""


def test_headings_and_sources_are_demanded(page):
    page.write_text("# Noise\n\n## Argument\n\n## Record\n", encoding="utf-8")
    assert "headings must be Precondition, Pseudocode, Postcondition, Argument, got Argument" in faults(page)
    assert "no source file is named" in faults(page)


def test_the_command_adds_a_line_or_says_why_not(page, monkeypatch, capsys):
    monkeypatch.chdir(page.parent)
    assert main([str(page)]) == 0
    assert capsys.readouterr().out.startswith("- source ")
    assert main([str(page)]) == 2
    assert "--reviewed" in capsys.readouterr().err
