"""Exact small cases of the switches."""

import pytest

from privkt.plugins import Status
from privkt.plugins.discovery import Candidate, Switches, installed, normalised
from privkt.plugins.manager import PluginManager

BUILTIN = Candidate("privkt", "datasets", "1", lambda: pytest.fail("a disabled plugin was imported"))
ONE = Candidate("one", "main", "1", lambda: pytest.fail("a disabled plugin was imported"))
TWO = Candidate("two", "main", "1", lambda: pytest.fail("a disabled plugin was imported"))


def admitted(environ):
    switches = Switches.read(environ)
    return [c.identity for c in (BUILTIN, ONE, TWO) if not switches.refusal(c)]


@pytest.mark.parametrize(
    ("environ", "let_in"),
    [
        ({}, ["privkt:datasets", "one:main", "two:main"]),
        ({"PRIVKT_LOAD_PLUGINS": ""}, ["privkt:datasets"]),
        ({"PRIVKT_LOAD_PLUGINS": "one:main"}, ["privkt:datasets", "one:main"]),
        ({"PRIVKT_LOAD_PLUGINS": " main , "}, ["privkt:datasets", "one:main", "two:main"]),
        ({"PRIVKT_LOAD_PLUGINS": "One:main"}, ["privkt:datasets", "one:main"]),
        ({"PRIVKT_DISABLE_PLUGINS": "main"}, ["privkt:datasets"]),
        ({"PRIVKT_DISABLE_PLUGINS": "two:main,privkt:datasets"}, ["one:main"]),
        ({"PRIVKT_DISABLE_PLUGINS": ""}, ["privkt:datasets", "one:main", "two:main"]),
        ({"PRIVKT_LOAD_PLUGINS": "main", "PRIVKT_DISABLE_PLUGINS": "one:main"}, ["privkt:datasets", "two:main"]),
    ],
)
def test_switches_let_in(environ, let_in):
    assert admitted(environ) == let_in


def test_what_a_switch_keeps_out_is_listed_but_not_imported():
    manager = PluginManager((BUILTIN, ONE), {"PRIVKT_LOAD_PLUGINS": "", "PRIVKT_DISABLE_PLUGINS": "datasets"})
    assert [(p.status, p.reason) for p in manager.plugins()] == [
        (Status.DISABLED, "kept out by PRIVKT_DISABLE_PLUGINS"),
        (Status.DISABLED, "not named in PRIVKT_LOAD_PLUGINS"),
    ]
    assert manager.warnings == ()


def test_a_mistyped_switch_is_told():
    switches = Switches.read({"PRIVKT_LOAD_PLUGINS": "one:mian", "PRIVKT_DISABLE_PLUGINS": "zzz"})
    assert switches.strangers([ONE]) == [
        "PRIVKT_LOAD_PLUGINS: 'one:mian' names no plugin; did you mean 'one:main'?",
        "PRIVKT_DISABLE_PLUGINS: 'zzz' names no plugin; no such plugin is installed",
    ]


def test_the_built_ins_are_found_through_their_entry_points():
    found = installed()
    assert {"privkt:datasets", "privkt:mechanisms"} <= {c.identity for c in found}
    assert all(c.builtin == (c.distribution == "privkt") for c in found)


def test_names_are_normalised():
    assert normalised("Privkt_Example.Two") == "privkt-example-two"
