"""`privkt budget`: every ledger of this user, or one in full."""

from __future__ import annotations

import math

from rich.markup import escape
from rich.table import Table

from privkt.cli.output import err, out, print_json


def overview(as_json: bool) -> None:
    """One line a data set."""
    from privkt.privacy import Ledger, PrivacyError
    from privkt.privacy.ledger import Places
    from privkt.privacy.state import state_folder

    pair = "epsilon {}, delta {}"
    rows, broken = [], []
    for path in sorted((state_folder() / "ledgers").glob("*.sqlite3")):
        try:
            ledger = Ledger.open(path)
            rows.append((ledger, ledger.spent(), ledger.left()))
        except PrivacyError as error:
            broken.append((path.stem, str(error)))
    if as_json:
        print_json(
            {
                "data_sets": [
                    {
                        "name": ledger.name,
                        "spent": {
                            "epsilon": math.inf if s.infinite else s.epsilon,
                            "delta": s.delta,
                            "infinite": s.infinite,
                        },
                        "left": {"epsilon": left.epsilon, "delta": left.delta},
                        "cap": {"epsilon": ledger.cap.epsilon, "delta": ledger.cap.delta},
                        "filter": ledger.filter,
                        "unit": str(ledger.unit),
                        "neighbouring": str(ledger.neighbouring),
                    }
                    for ledger, s, left in rows
                ],
                "broken": dict(broken),
            }
        )
    elif not rows and not broken:
        out.print("no data set has a ledger yet; the first run of a config makes one")
    else:
        table = Table("data set", "spent", "left", "cap", "filter", "charges", box=None, pad_edge=False)
        for ledger, spent, left in rows:
            cap = ledger.cap
            table.add_row(
                ledger.name,
                "infinite" if spent.infinite else pair.format(*spent.said),
                str(left),
                pair.format(*cap.said(Places.of(cap, spent.epsilon, spent.delta))),
                ledger.filter,
                str(len(ledger.charges())),
            )
        out.print(table)
    for name, problem in broken:
        err.print(f"[red]{escape(name)}:[/red] {escape(problem)}")


def entries(name: str, as_json: bool) -> None:
    """Every entry of a ledger, after its chain was verified."""
    from privkt.privacy import Ledger

    ledger = Ledger.open(name)
    ledger.verify()
    listed = ledger.entries()
    if as_json:
        print_json([{"sequence": e.sequence, "kind": e.kind, "time": e.time, "hash": e.hash, **e.body} for e in listed])
        return
    for entry in listed:
        said = _said(entry.kind, entry.body)
        out.print(f"{entry.sequence:4d}  {entry.time}  {entry.kind:7s} {said}", markup=False)
    out.print(ledger.statement(), markup=False)
    out.print(f"head {ledger.head()}")


def raise_cap(name: str, epsilon: float, delta: float | None, reason: str) -> None:
    """Raises a cap with its reason on record, and says what a further run may spend."""
    from privkt.privacy import Ledger

    ledger = Ledger.open(name)
    ledger.raise_cap(epsilon, ledger.cap.delta if delta is None else delta, reason)
    out.print(ledger.statement(), markup=False)
    left = ledger.left()
    out.print("left: epsilon = {}, delta = {}".format(*left.said), markup=False)
    if not ledger.spent().infinite and left.delta == 0:
        out.print(
            f"no delta is left, and a further training needs some: raise it too, with `privkt budget raise {name} "
            f"--epsilon {epsilon:g} --delta D --reason WHY`, where D is above {ledger.cap.delta:g}",
            markup=False,
        )


def _guarantee(values: dict) -> str:
    from privkt.privacy import Guarantee

    return str(Guarantee.from_json(values))


def _said(kind: str, body: dict) -> str:
    if kind == "opened":
        return f"cap epsilon {body['cap']['epsilon']:g}, delta {body['cap']['delta']:g}, N = {body['size']}"
    if kind == "charge":
        return f"{body['purpose']}: {_guarantee(body['guarantee'])}"
    if kind == "cap":
        return f"cap raised to epsilon {body['epsilon']:g}, delta {body['delta']:g}: {body['reason']}"
    if kind == "taken":
        return f"{body['steps']} steps taken"
    return f"{body.get('name', '')} {str(body.get('sha256', ''))[:16]}"
