"""`privkt_before_release` fails closed: exact small cases."""

from types import SimpleNamespace

import pytest

from privkt.plugins import PluginManager, ReleaseSummary, ReleaseVetoed, hookimpl

SUMMARY = ReleaseSummary("a", "synthesize", "Texts", 3, 100, "00" * 32, "epsilon = 1")


def asked(*hooks):
    manager = PluginManager((), {})
    for i, hook in enumerate(hooks):
        manager.register(SimpleNamespace(privkt_before_release=hookimpl(hook)), distribution="acme", entry=f"p{i}")
    manager.before_release(SUMMARY)


def agree(summary):
    return None


def test_nobody_and_those_who_agree_let_it_cross():
    asked()
    asked(agree, lambda: None)


def test_every_hook_sees_the_summary():
    seen = []
    asked(lambda summary: seen.append(summary), lambda summary: seen.append(summary))
    assert seen == [SUMMARY, SUMMARY]


def refuse(summary):
    raise ReleaseVetoed("not on Sundays")


def test_a_veto_names_its_plugin():
    with pytest.raises(ReleaseVetoed, match=r"^plugin 'acme:p1' refused this release: not on Sundays$"):
        asked(agree, refuse)


@pytest.mark.parametrize("fault", [KeyError("canary-5319"), SystemExit(0), RecursionError("canary-5319")])
def test_any_exception_refuses_and_its_text_is_not_repeated(fault):
    def fail(summary):
        raise fault

    with pytest.raises(ReleaseVetoed) as caught:
        asked(fail, agree)
    assert f"'acme:p0' failed in privkt_before_release with {type(fault).__name__}" in str(caught.value)
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize("answer", [False, True, 0, "no"])
def test_an_answer_that_is_not_none_refuses(answer):
    with pytest.raises(ReleaseVetoed, match=f"'acme:p0' answered {type(answer).__name__}"):
        asked(lambda summary: answer)


def test_a_plugin_whose_other_hook_fails_is_still_asked():
    manager = PluginManager((), {})
    plugin = SimpleNamespace(privkt_before_release=hookimpl(refuse), privkt_datasets=hookimpl(lambda: 1 / 0))
    manager.register(plugin)
    with pytest.raises(ReleaseVetoed, match="Sundays"):
        manager.before_release(SUMMARY)
