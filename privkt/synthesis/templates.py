"""Labelled text as one string: a control code on its own line, the text below it.

The code is what a generator is prompted with, so that a sample's label is known without predicting it. The same layout
shows demonstrations to a large model and is read back from its answers (`parsing.labelled_texts`).
"""

from __future__ import annotations

import re
import string
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from privkt.contracts import Example, LabelledText
from privkt.privacy import RefusedInput
from privkt.synthesis.labels import leading_label, match_label, normalised

AGNEWS_NAMES = {
    "world": "world",
    "sports": "sports",
    "business": "business",
    "science and technology": "science and technology",
}
_AGNEWS_ALIASES = {
    "0": "world", "1": "sports", "2": "business", "3": "science and technology",
    "sport": "sports", "sci tech": "science and technology", "scitech": "science and technology",
    "science": "science and technology", "technology": "science and technology",
    "science technology": "science and technology",
}  # fmt: skip
_BUILT_IN = {
    "yelp": "Product type: {domain} | Review Score: {label}",
    "agnews": "Product type: {domain} | Text Category: {label}",
}
# "4/5" and "4 stars" are one label.
_OUT_OF = re.compile(r"^\s*(?:/\s*\d+|stars?)\b", re.IGNORECASE)
_DOMAINS = {"yelp": "Restaurants", "agnews": "AGnews"}


class TemplateConfig(BaseModel):
    """The `template:` block. `label_names` gives labels the names that are written into the code.

    `name` custom needs `control`, with `{label}` once and `{domain}` at most once. All of it is public.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Literal["yelp", "agnews", "custom"] = "custom"
    control: str | None = None
    label_names: dict[str, str] = Field(default_factory=dict)
    domain: str = ""


@dataclass(frozen=True)
class Template:
    """A control code with one name for each declared label.

    Raises: RefusedInput, for a code that could not be read back: no `{label}`, several lines, names that look alike.
    """

    control: str
    names: Mapping[str, str]
    domain: str = ""
    _pattern: re.Pattern[str] = field(init=False, repr=False, compare=False)
    _tail: re.Pattern[str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        fields = _fields(self.control)
        if fields.count("label") != 1 or fields.count("domain") > 1 or set(fields) - {"label", "domain"}:
            raise RefusedInput(
                "template.control must contain {label} once, {domain} at most once and nothing else in braces, "
                f"got {', '.join(fields) or 'no field'}; write e.g. 'Topic: {{label}}'"
            )
        if not re.search(r"\w", self.control.split("{label}")[0].replace("{domain}", "")):
            raise RefusedInput(
                "template.control must have a fixed word before {label}, which tells a code from a text, got none; "
                "write e.g. 'Topic: {label}'"
            )
        for what, value in (("control", self.control), ("domain", self.domain), *self.names.items()):
            if len(value.splitlines()) > 1:
                raise RefusedInput(f"template: {what} must be one line, got several; remove the line breaks")
        if "domain" in fields and not self.domain.strip():
            raise RefusedInput(
                "template.domain must be given, since the control code has {domain}; got nothing; add `domain:`"
            )
        if not self.names:
            raise RefusedInput("template: at least one label must be declared, got none; add `labels:` to the data")
        seen: dict[str, str] = {}
        for label, name in self.names.items():
            plain = normalised(name)
            if not plain:
                raise RefusedInput(
                    f"template.label_names: the name of label {label!r} must have a letter or digit, got none; "
                    "rename it"
                )
            if plain in seen:
                raise RefusedInput(
                    f"template.label_names: names must differ in more than case and punctuation, got the same for "
                    f"{seen[plain]!r} and {label!r}; rename one"
                )
            seen[plain] = label
        object.__setattr__(self, "names", dict(self.names))
        before, after = (
            part.replace("{domain}", self.domain).replace("{{", "{").replace("}}", "}")
            for part in self.control.split("{label}")
        )
        # Decoration before the code ("2. **", "- "), any case and any spacing are forgiven.
        start = r"^[\s\-*#>•\"'`\[(]*(?:\d+\s*[.):]\s*)?[\s*#\"'`\[(]*"
        object.__setattr__(self, "_pattern", re.compile(f"{start}{_loose(before)}\\s*(?P<rest>.*)$", re.IGNORECASE))
        object.__setattr__(self, "_tail", re.compile(rf"^\s*{_loose(after)}", re.IGNORECASE))

    @property
    def labels(self) -> tuple[str, ...]:
        """The declared labels, in their declared order."""
        return tuple(self.names)

    def code(self, label: str) -> str:
        """The control code of a label: one line, nothing private in it."""
        if label not in self.names:
            raise RefusedInput(
                f"template: labels must be among the {len(self.names)} declared ones, got another; correct `labels:`"
            )
        return self.control.format(label=self.names[label], domain=self.domain)

    def prompt(self, label: str) -> str:
        """What a model continues with a text of this label."""
        return self.code(label) + "\n"

    def render(self, text: str, label: str) -> str:
        """Code and text; the text on one line, so that layouts can be told apart from content."""
        return self.prompt(label) + one_line(text)

    def render_all(self, rows: Iterable[LabelledText | tuple[str, str]]) -> str:
        """Several rows, an empty line between them."""
        return "\n\n".join(self.render(text, str(label)) for text, label in rows)

    def read_code(self, line: str) -> tuple[str | None, str] | None:
        """(label, what follows on the line) when a line is a control code, None when it is not.

        Edge cases: label None when the code names no declared label, or several.
        """
        found = self._pattern.match(line)
        if found is None:
            return None
        rest = found["rest"]
        leading = leading_label(rest, self.names)
        if leading is None:
            return match_label(rest, self.names), ""
        label, after = leading
        after = _OUT_OF.sub("", after, count=1)
        if normalised(after) and _is_list_of_names(rest, self.names):
            return None, ""
        after = self._tail.sub("", after, count=1)
        return label, after.lstrip(" \t.:;,|*#\"'`])-–").rstrip()

    def example(self, text: str, label: str) -> Example:
        """The training example of one record: the code as its prompt, the text as what is to be learnt."""
        return Example(prompt=self.prompt(label), completion=one_line(text))


def make_template(config: TemplateConfig, labels: Sequence[str] | None, *, domain: str | None = None) -> Template:
    """The template for a client's declared labels; `domain` overrides the config's.

    Raises: RefusedInput, when labels are missing or a built-in code has no name for one.
    """
    if not labels:
        raise RefusedInput(
            "data.labels must list every label, got nothing: the labels of synthetic texts are public and are never "
            "collected from private rows; add e.g. `labels: [negative, positive]`"
        )
    control = config.control or _BUILT_IN.get(config.name)
    if control is None:
        raise RefusedInput(
            "template.control must be given for a custom template, got nothing; write e.g. 'Topic: {label}', or choose "
            "`name: yelp` or `name: agnews`"
        )
    unknown = [label for label in config.label_names if label not in labels]
    if unknown:
        raise RefusedInput(
            f"template.label_names: keys must be declared labels ({', '.join(labels)}), got {unknown[0]!r}; correct it"
        )
    names = {label: config.label_names.get(label) or _built_in_name(config.name, label) for label in labels}
    return Template(control, names, domain or config.domain or _DOMAINS.get(config.name, ""))


def one_line(text: str) -> str:
    """The text with every run of white space made one space."""
    return " ".join(text.split())


def _built_in_name(template: str, label: str) -> str:
    if template != "agnews":
        return label
    plain = normalised(label)
    name = AGNEWS_NAMES.get(plain) or _AGNEWS_ALIASES.get(plain)
    if name is None:
        raise RefusedInput(
            f"template agnews: label {label!r} must be one of {', '.join(AGNEWS_NAMES)} or 0..3; give it a name under "
            "`label_names` or use a custom template"
        )
    return name


def _fields(control: str) -> list[str]:
    try:
        return [name for _, name, spec, conversion in string.Formatter().parse(control) if name is not None]
    except ValueError:
        raise RefusedInput(
            "template.control: braces must be balanced, got an open or stray one; double a brace that is text"
        ) from None


def _loose(text: str) -> str:
    """A regular expression for the same words and signs with any white space between them."""
    return r"\s*".join(re.escape(part) for part in re.findall(r"\w+|[^\w\s]", text))


def _is_list_of_names(text: str, names: Mapping[str, str]) -> bool:
    left = f" {normalised(text)} "
    for name in sorted(names.values(), key=len, reverse=True):
        left = left.replace(f" {normalised(name)} ", "  ")
    return not (set(left.split()) - {"or", "and"})
