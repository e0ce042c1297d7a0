"""What a site keeps between steps: typed messages on disk, private, per seed, over what all seeds share."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from privkt.contracts.messages import Adapter, Message, Model, Outcome, Parcel, SoftPrompt, Texts
from privkt.privacy import Guarantee, Provenance, Release
from privkt.runtime.errors import Damaged, WireError
from privkt.runtime.files import (
    copy_folder,
    make_folder,
    read_json,
    safe_name,
    sync_folder,
    write_file,
    write_json,
)
from privkt.runtime.tables import decode_texts, encode_texts

_MESSAGE, _VALUES, _RELEASE = "message", "values", "release"


class DiskState:
    """`privkt.contracts.State` in a folder; what it lacks is looked for in `shared` (the steps run once for all seeds).

    Guarantee: a crash leaves the old value or the new one. Nothing here ever crosses.
    """

    def __init__(self, folder: Path, shared: DiskState | None = None) -> None:
        self.folder = folder
        self.shared = shared

    def save(self, name: str, value: Message) -> None:
        """Stores a message, atomically; the same name again replaces it."""
        self._write(name, _MESSAGE, self._put(name, value))

    def load(self, name: str) -> Any:
        """The message stored under `name`; KeyError names what there is."""
        folder, record = self._read(name, _MESSAGE)
        return _get(folder, record)

    def model_folder(self, name: str) -> Path | None:
        """Where the model of a stored Outcome lies, in Hugging Face or PEFT format; None if it has none."""
        folder, record = self._read(name, _MESSAGE)
        model = record.get("model")
        return folder / model["payload"] if model else None

    def save_json(self, name: str, value: Any) -> None:
        """Stores JSON values beside the messages."""
        self._write(name, _VALUES, value)

    def load_json(self, name: str) -> Any:
        """The JSON values stored under `name`; KeyError names what there is."""
        return self._read(name, _VALUES)[1]

    def save_release(self, name: str, release: Any) -> None:
        """Stores a Release with its guarantee, event, provenance and charge."""
        from privkt.privacy.events import event_to_json

        record = {
            "payload": self._put(name, release.payload),
            "guarantee": release.guarantee.to_json(),
            "event": event_to_json(release.event),
            "provenance": release.provenance.to_json(),
            "charge": release.charge,
        }
        self._write(name, _RELEASE, record)

    def load_release(self, name: str) -> Any:
        """The Release stored under `name`; KeyError names what there is."""
        from privkt.privacy.events import event_from_json

        folder, record = self._read(name, _RELEASE)
        return Release(
            payload=_get(folder, record["payload"]),
            guarantee=Guarantee.from_json(record["guarantee"]),
            event=event_from_json(record["event"]),
            provenance=Provenance(**record["provenance"]),
            charge=record["charge"],
        )

    def __contains__(self, name: str) -> bool:
        return name in self.names()

    def names(self) -> tuple[str, ...]:
        """Everything stored, here and in what is shared."""
        found = set(self.shared.names()) if self.shared else set()
        if self.folder.is_dir():
            for kind in (_MESSAGE, _VALUES, _RELEASE):
                suffix = f".{kind}.json"
                found |= {p.name.removesuffix(suffix) for p in self.folder.glob(f"[!.]*{suffix}")}
        return tuple(sorted(found))

    def _record(self, name: str, kind: str) -> Path:
        return self.folder / f"{safe_name('state name', name)}.{kind}.json"

    def _write(self, name: str, kind: str, record: Any) -> None:
        # The record is what makes a payload count; payloads of earlier records of this name and kind go afterwards.
        path = self._record(name, kind)
        make_folder(self.folder)
        old = read_json(path) if path.exists() else None
        write_json(path, record)
        for payload in _payloads(old, kind):
            stale = self.folder / payload
            shutil.rmtree(stale) if stale.is_dir() else stale.unlink(missing_ok=True)

    def _read(self, name: str, kind: str) -> tuple[Path, Any]:
        path = self._record(name, kind)
        if path.exists():
            return self.folder, read_json(path)
        if self.shared is not None and self.shared._record(name, kind).exists():
            return self.shared._read(name, kind)
        there = ", ".join(self.names()) or "nothing"
        raise KeyError(f"state has no {kind} {name!r}; it has {there}")

    def _put(self, name: str, value: Message) -> dict[str, Any]:
        make_folder(self.folder)
        place = self.folder / f"{safe_name('state name', name)}.{secrets.token_hex(4)}"
        if isinstance(value, Texts):
            place = place.with_name(place.name + ".arrow")
            write_file(place, encode_texts(value, value.columns))
            return {"type": "texts", "payload": place.name}
        if isinstance(value, Adapter | SoftPrompt):
            make_folder(place)
            for file, data in value.files.items():
                write_file(place / safe_name("adapter file", file), data)
            sync_folder(self.folder)
            return {"type": type(value).__name__, "payload": place.name, "files": sorted(value.files)}
        if isinstance(value, Parcel):
            return {"type": "Parcel", "items": {one: self._put(f"{name}.{one}", v) for one, v in value.items.items()}}
        if isinstance(value, Model):
            copy_folder(Path(value.folder), place)
            return {"type": "Model", "payload": place.name}
        if isinstance(value, Outcome):
            model = None if value.model is None else self._put(name, value.model)
            scores = {arm: dict(metrics) for arm, metrics in value.scores.items()}
            # JSON on disk is sorted by key; the order of the arms is the method's, for its tables.
            return {
                "type": "Outcome", "scores": scores, "order": list(scores), "notes": dict(value.notes), "model": model,
            }  # fmt: skip
        raise TypeError(
            f"state {name!r}: must be Texts, Adapter, SoftPrompt, Parcel, Model or Outcome, got "
            f"{type(value).__name__}; use save_json for plain values and save_release for a Release"
        )


def _get(folder: Path, record: Mapping[str, Any]) -> Message:
    kind = record["type"]
    if kind == "Outcome":
        model: Any = None if record["model"] is None else _get(folder, record["model"])
        scores = {arm: record["scores"][arm] for arm in record["order"]}
        return Outcome(scores=scores, notes=record["notes"], model=model)
    if kind == "Parcel":
        return Parcel({name: _item(folder, item) for name, item in record["items"].items()})
    place = folder / record["payload"]
    try:
        if kind == "texts":
            return decode_texts(place.read_bytes())
        if kind == "Model":
            return Model(place)
        files = {name: (place / name).read_bytes() for name in record["files"]}
    except (FileNotFoundError, WireError):
        raise Damaged(
            f"state: what is stored as {place.name} is damaged or gone; restore the run directory from a copy or "
            "start a new run"
        ) from None
    return Adapter(files) if kind == "Adapter" else SoftPrompt(files)


def _item(folder: Path, record: Mapping[str, Any]) -> Texts | Adapter | SoftPrompt:
    found = _get(folder, record)
    assert isinstance(found, Texts | Adapter | SoftPrompt)
    return found


def _payloads(record: Any, kind: str) -> list[str]:
    if kind == _VALUES or not isinstance(record, dict):
        return []
    inner = record.get("payload") if kind == _RELEASE else record
    if isinstance(inner, dict) and inner.get("type") == "Outcome":
        inner = inner.get("model")
    if isinstance(inner, dict) and inner.get("type") == "Parcel":
        return [item["payload"] for item in inner["items"].values()]
    return [inner["payload"]] if isinstance(inner, dict) and "payload" in inner else []
