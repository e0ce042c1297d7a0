"""What commands over mechanisms share: options of theirs as words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import yaml


def options_of(command: str, words: Sequence[str]) -> dict[str, Any]:
    """KEY=VALUE words as keyword arguments, values read as YAML. Raises: RefusedInput, for other words."""
    from privkt.privacy import RefusedInput

    options: dict[str, Any] = {}
    for word in words:
        key, sign, value = word.partition("=")
        if not sign or not key.isidentifier():
            raise RefusedInput(
                f"{command}: --option takes KEY=VALUE, got something else; write --option utility=cosine"
            )
        options[key] = value_of(command, "--option", value)
    return options


def value_of(command: str, option: str, text: str) -> Any:
    """A word of the command line as YAML reads it. Raises: RefusedInput, where it does not."""
    from privkt.privacy import RefusedInput

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        raise RefusedInput(f"{command}: {option} takes YAML (8, true, [a, b]), got something else; quote it") from None
