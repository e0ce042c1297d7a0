"""What the large model is shown: a numbered cluster to choose from, demonstrations to continue."""

from __future__ import annotations

from collections.abc import Sequence

from privkt.contracts import ChatTurn, LabelledText, Prompt
from privkt.synthesis.templates import Template, one_line

_CRITERIA = (
    "A text is worth keeping if it fits its category, makes sense, and says something that no text kept before it says."
)
# Public and made up; a small model needs to see the form of an answer once.
_WORKED = (
    "1. [fruit] A ripe pear is sweet and its skin turns from green to yellow.\n"
    "2. [fruit] When a pear is ripe it is sweet, and its green skin turns yellow.\n"
    "3. [tools] Cherries are picked in June and kept in a cool, dry room.\n"
    "4. [tools] A good plane takes a thin shaving off the board at every stroke.\n"
    "Keep: 1, 4"
)


def selection_prompt(rows: Sequence[LabelledText], template: Template, *, chat: bool) -> Prompt:
    """Asks which texts of a cluster to keep; the answer is read by `kept_positions`.

    Guarantee: every row is in the prompt, numbered from 1, with its label's name.
    """
    numbered = "\n".join(
        f"{i}. [{template.names[str(row.label)]}] {one_line(row.text)}" for i, row in enumerate(rows, start=1)
    )
    about = f" The texts are about: {template.domain}." if template.domain else ""
    if chat:
        return (
            ChatTurn("system", f"You choose training texts. {_CRITERIA}{about}"),
            ChatTurn("user", f"{numbered}\n\nWhich numbers do you keep? Answer with the numbers alone, or none."),
        )
    return f"{_CRITERIA}{about}\n\n{_WORKED}\n\n{numbered}\nKeep:"


def augmentation_prompt(
    demonstrations: Sequence[LabelledText], label: str, template: Template, *, chat: bool, texts: int = 1
) -> Prompt:
    """Asks for new texts of a label in the layout of the demonstrations; none of them makes it a zero-shot prompt.

    The plain layout ends with the wanted code, so that whatever continues it has that label.
    """
    shown = template.render_all(demonstrations)
    if chat:
        how_many = "one new text" if texts == 1 else f"{texts} new texts, an empty line between them"
        ask = (
            f"Write {how_many} for this line, in your own words and true to it. "
            "Give the line, then the text below it, and nothing else.\n\n" + template.code(label)
        )
        examples = f"Examples of the layout:\n\n{shown}\n\n" if shown else ""
        return (
            ChatTurn("system", "You write realistic texts for training a classifier."),
            ChatTurn("user", examples + ask),
        )
    opening = "Different texts, each below a line that says what it is.\n\n"
    return opening + (shown + "\n\n" if shown else "") + template.prompt(label)
