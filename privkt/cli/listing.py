"""`privkt plugins` and `privkt doctor`."""

from __future__ import annotations

from rich.markup import escape
from rich.table import Table

from privkt.cli.output import out, print_json


def plugins(kind: str | None, as_json: bool) -> None:
    """Lists plugins and what they provide."""
    from privkt.plugins import get_manager
    from privkt.plugins.status import Status
    from privkt.plugins.types import PluginKind
    from privkt.privacy import RefusedInput

    if kind is not None and kind not in list(PluginKind):
        raise RefusedInput(f"plugins: --kind must be one of {', '.join(PluginKind)}, got {kind!r}")
    manager = get_manager()
    provided = manager.provided(PluginKind(kind) if kind else None)
    if as_json:
        print_json(
            {
                "plugins": [
                    {
                        "identity": p.identity,
                        "version": p.version,
                        "status": str(p.status),
                        "reason": p.reason,
                    }
                    for p in manager.plugins()
                ],
                "provided": [
                    {
                        "kind": str(p.kind),
                        "name": p.name,
                        "full_name": p.full_name,
                        "summary": p.spec.summary,
                        "guarantee": getattr(p.spec, "guarantee", None),
                        "unit": getattr(p.spec, "unit", None),
                    }
                    for p in provided
                ],
                "warnings": list(manager.warnings),
            }
        )
        return
    table = Table("kind", "name", "what it is", "guarantee", "of a", "from", box=None, pad_edge=False)
    for p in sorted(provided, key=lambda p: str(p.kind)):
        promised = (getattr(p.spec, "guarantee", ""), getattr(p.spec, "unit", ""))
        table.add_row(str(p.kind), p.shown_name, p.spec.summary, *promised, str(p.plugin))
    out.print(table)
    for plugin in manager.plugins():
        if plugin.status is not Status.OK:
            out.print(escape(f"{plugin.identity}: {plugin.status}" + (f" ({plugin.reason})" if plugin.reason else "")))
    for warning in manager.warnings:
        out.print(f"[yellow]warning:[/yellow] {escape(warning)}")


def doctor(as_json: bool) -> None:
    """Prints the installation's facts; exits with 1 when something would stop a run."""
    import typer

    from privkt.cli.doctor import examine

    facts = examine()
    if as_json:
        print_json(facts)
    else:
        for key, value in facts.items():
            if key == "problems":
                continue
            if isinstance(value, dict):
                out.print(f"{key}")
                for name, inner in value.items():
                    out.print(f"  {name}: {inner}")
            elif isinstance(value, list):
                out.print(f"{key}: " + (", ".join(_short(item) for item in value) or "none"))
            else:
                out.print(f"{key}: {value}")
        for problem in facts["problems"]:
            out.print(f"[red]problem:[/red] {problem}")
        if not facts["problems"]:
            out.print("[green]no problems found[/green]")
    if facts["problems"]:
        raise typer.Exit(1)


def _short(item: object) -> str:
    if isinstance(item, dict):
        return f"{item.get('identity')} ({item.get('status')})"
    return str(item)
