"""Results of a step that trains one model in several ways."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any


class ArmResults:
    """Results of finished arms in the step's folder, so that a resumed step trains only the others."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "arms.json"
        self._found: dict[str, Any] = json.loads(self._path.read_text()) if self._path.exists() else {}

    def __contains__(self, arm: str) -> bool:
        return arm in self._found

    def __getitem__(self, arm: str) -> Any:
        return self._found[arm]

    def put(self, arm: str, result: Mapping[str, Any]) -> None:
        """Stores one arm's result before the next arm is begun."""
        self._found[arm] = dict(result)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        waiting = self._path.with_suffix(".waiting")
        with waiting.open("w", encoding="utf-8") as file:
            json.dump(self._found, file)
            file.flush()
            os.fsync(file.fileno())
        waiting.replace(self._path)
