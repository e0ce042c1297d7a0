"""Exact small cases of the manager: what each kind of bad plugin does to itself and to nobody else."""

from types import SimpleNamespace

import pytest

from privkt.plugins import (
    BackendSpec,
    BrokenPlugin,
    DatasetSpec,
    EvaluatorSpec,
    MechanismSpec,
    MethodSpec,
    PluginKind,
    PluginManager,
    Status,
    UnknownPlugin,
    get_manager,
    hookimpl,
)
from privkt.plugins.discovery import Candidate

COUNTER = "collections:Counter"


def plugin_of(**hooks):
    """An object whose attributes are hook implementations, each given as a function of the hook's arguments."""
    return SimpleNamespace(**{name: hookimpl(function) for name, function in hooks.items()})


def candidate(entry, plugin=None, distribution="acme", fault=None):
    def load():
        if fault is not None:
            raise fault
        return plugin

    return Candidate(distribution, entry, "1.0", load)


def dataset(name, factory=COUNTER):
    return plugin_of(privkt_datasets=lambda: [DatasetSpec(name, factory)])


def manager_of(*candidates, **environ):
    return PluginManager(candidates, environ)


def only(manager, identity):
    return next(p for p in manager.plugins() if p.identity == identity)


GOOD = candidate("good", dataset("good"), "wellbehaved")


def declaring(*specs):
    return plugin_of(privkt_datasets=lambda: list(specs))


def nothing():
    return []


def raising():
    raise OSError("no such table")


BAD_PLUGINS = [
    (candidate("bad", fault=ImportError("No module 'x'\nmore")), "broken", "import failed: ImportError: No module 'x'"),
    (candidate("bad", fault=SystemExit(0)), "broken", "import failed: SystemExit: 0"),
    (candidate("bad", plugin_of(privkt_datasets=lambda odd: [])), "broken", "wrong signature of privkt_datasets"),
    (candidate("bad", SimpleNamespace()), "broken", "it implements no hook"),
    (candidate("bad", plugin_of(privkt_datasets=raising)), "failing", "OSError: no such table"),
    (candidate("bad", plugin_of(privkt_datasets=lambda: (1 / 0 for _ in "a"))), "failing", "ZeroDivisionError"),
    (candidate("bad", plugin_of(privkt_datasets=lambda: 7)), "failing", "TypeError"),
    (candidate("bad", declaring("good")), "failing", "must yield DatasetSpec, got str"),
    (candidate("bad", declaring(DatasetSpec("a:b", COUNTER))), "failing", "lower-case letters"),
    (candidate("bad", declaring(DatasetSpec("a", "os"))), "failing", "'module:attribute', got 'os'"),
    (candidate("bad", declaring(DatasetSpec("a", COUNTER), DatasetSpec("a", COUNTER))), "failing", "got 'a' twice"),
    (candidate("bad", plugin_of(privkt_reports=nothing)), "newer", "hook 'privkt_reports' is unknown"),
    (candidate("bad", plugin_of(privkt_dataset=nothing)), "newer", "did it mean 'privkt_datasets'"),
]


@pytest.mark.parametrize(("bad", "status", "reason"), BAD_PLUGINS)
def test_a_bad_plugin_is_named_and_the_good_one_works(bad, status, reason):
    manager = manager_of(bad, GOOD)
    found = only(manager, "acme:bad")
    assert found.status == status
    assert reason in found.reason
    assert "\n" not in found.reason
    assert manager.find("dataset", "good").plugin == "wellbehaved:good"
    assert only(manager, "wellbehaved:good").status is Status.OK
    assert sum("'acme:bad'" in warning for warning in manager.warnings) == 1


def test_the_signature_fault_says_how_the_hook_is_written():
    def privkt_datasets(nonsense):
        return []

    manager = manager_of(candidate("bad", plugin_of(privkt_datasets=privkt_datasets)))
    assert "privkt_datasets(nonsense)" in only(manager, "acme:bad").reason


def test_ctrl_c_while_loading_is_not_the_plugins_fault():
    with pytest.raises(KeyboardInterrupt):
        manager_of(candidate("bad", fault=KeyboardInterrupt()))


def test_a_failing_hook_keeps_the_plugins_other_hooks():
    both = plugin_of(privkt_datasets=lambda: 1 / 0, privkt_methods=nothing, privkt_mechanisms=lambda: [COIN])
    manager = manager_of(candidate("half", both))
    assert only(manager, "acme:half").status is Status.FAILING
    assert manager.find("mechanism", "coin").full_name == "acme:coin"
    with pytest.raises(UnknownPlugin, match=r"'acme:half' is failing and may provide it"):
        manager.find("dataset", "x")


COIN = MechanismSpec("coin", COUNTER, guarantee="pure", unit="record", neighbouring="local", proof="proofs/coin.md")


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"guarantee": "total"}, "guarantee of 'coin' must be one of pure"),
        ({"unit": ""}, "unit of 'coin' must be one of token"),
        ({"neighbouring": "near"}, "neighbouring of 'coin' must be one of"),
        ({"proof": ""}, "must name the page of its proof"),
    ],
)
def test_a_mechanism_must_say_what_it_promises(change, text):
    import dataclasses

    spec = dataclasses.replace(COIN, **change)
    manager = manager_of(candidate("bad", plugin_of(privkt_mechanisms=lambda: [spec])))
    assert text in only(manager, "acme:bad").reason


def test_a_newer_hook_leaves_the_rest_of_the_plugin_working():
    plugin = plugin_of(privkt_reports=nothing, privkt_datasets=lambda: [DatasetSpec("d", COUNTER)])
    manager = manager_of(candidate("new", plugin))
    assert only(manager, "acme:new").status is Status.NEWER
    assert manager.create("dataset", "d", "aab") == {"a": 2, "b": 1}


@pytest.mark.parametrize(
    ("kind", "plugin"),
    [
        ("mechanism", plugin_of(privkt_mechanisms=lambda: iter([COIN]))),
        ("method", plugin_of(privkt_methods=lambda: [MethodSpec("coin", COUNTER)])),
        ("backend", plugin_of(privkt_backends=lambda: {BackendSpec("coin", COUNTER)})),
        ("dataset", plugin_of(privkt_datasets=lambda: (DatasetSpec("coin", COUNTER),))),
        ("evaluator", plugin_of(privkt_evaluators=lambda: [EvaluatorSpec("coin", COUNTER)])),
    ],
)
def test_each_hook_provides_its_kind(kind, plugin):
    manager = manager_of(candidate("m", plugin))
    assert [(p.kind, p.full_name) for p in manager.provided()] == [(kind, "acme:coin")]
    assert [p.kind for p in manager.provided(kind)] == [PluginKind(kind)]


def test_an_optional_unknown_hook_is_no_warning():
    plugin = SimpleNamespace(privkt_reports=hookimpl(optionalhook=True)(lambda: iter(())), **vars(dataset("d")))
    assert only(manager_of(candidate("new", plugin)), "acme:new").status is Status.OK


def test_equal_entry_names_in_two_distributions_are_both_seen():
    manager = manager_of(candidate("main", dataset("a"), "one"), candidate("main", dataset("b"), "two"))
    assert [p.identity for p in manager.plugins()] == ["one:main", "two:main"]
    assert {p.name for p in manager.provided("dataset")} == {"a", "b"}


def test_one_distribution_declaring_an_entry_twice_is_told():
    manager = manager_of(candidate("main", dataset("a")), candidate("main", dataset("b")))
    assert [p.status for p in manager.plugins()] == [Status.OK, Status.BROKEN]
    assert "declares this entry twice" in manager.plugins()[1].reason


def test_the_built_in_keeps_its_short_name():
    ours, theirs = candidate("datasets", dataset("json"), "privkt"), candidate("main", dataset("json"))
    manager = manager_of(ours, theirs)
    assert manager.find("dataset", "json").plugin == "privkt:datasets"
    assert manager.find("dataset", "acme:json").plugin == "acme:main"
    assert manager.find("dataset", "privkt:json").plugin == "privkt:datasets"
    assert manager.find("dataset", "acme:json").shown_name == "acme:json"
    assert manager.warnings == (
        "dataset 'json' has 2 providers: the short name means the built-in; reach the other as 'acme:json'",
    )


def test_between_third_parties_the_short_name_is_refused_with_both_full_names():
    manager = manager_of(candidate("m", dataset("xml"), "one"), candidate("m", dataset("xml"), "two"))
    with pytest.raises(UnknownPlugin, match=r"'xml' is ambiguous: write 'one:xml' or 'two:xml' in full"):
        manager.find("dataset", "xml")
    assert manager.find("dataset", "two:xml").plugin == "two:m"
    assert [p.short for p in manager.provided()] == [False, False]
    assert len(manager.warnings) == 1
    assert only(manager, "one:m").provides[0].short is False


def test_one_distribution_providing_a_name_twice_is_refused():
    manager = manager_of(candidate("m", dataset("xml")), candidate("n", dataset("xml")))
    for name in ("xml", "acme:xml"):
        with pytest.raises(UnknownPlugin, match=r"more than once, by acme:m, acme:n"):
            manager.find("dataset", name)


def test_the_same_name_of_another_kind_is_no_conflict():
    manager = manager_of(candidate("m", dataset("coin")), candidate("n", plugin_of(privkt_mechanisms=lambda: [COIN])))
    assert manager.find("mechanism", "coin").kind is PluginKind.MECHANISM
    assert manager.warnings == ()


def test_distribution_names_compare_as_package_indexes_do():
    manager = manager_of(candidate("m", dataset("xml"), "my-plugin"))
    assert manager.find("dataset", "My_Plugin:xml").full_name == "my-plugin:xml"


def test_an_unknown_name_gets_the_nearest_and_what_to_do():
    with pytest.raises(UnknownPlugin) as caught:
        manager_of(GOOD).find("dataset", "god")
    text = str(caught.value)
    assert "no plugin provides 'god'; nearest: 'good'" in text
    assert "`privkt plugins --kind dataset`" in text
    assert "pip install" in text
    assert caught.value.exit_code == 2


def test_an_unknown_name_points_at_the_plugin_that_would_have_it():
    manager = manager_of(
        candidate("xml", fault=ImportError("no lxml")),
        candidate("off", dataset("z"), "other"),
        PRIVKT_DISABLE_PLUGINS="off",
    )
    with pytest.raises(UnknownPlugin) as caught:
        manager.find("dataset", "acme:xml")
    assert "plugin 'acme:xml' is broken and may provide it: import failed: ImportError: no lxml" in str(caught.value)
    assert "other:off" not in str(caught.value)
    with pytest.raises(UnknownPlugin, match=r"'other:off' is disabled and may provide it: kept out by PRIVKT_DISABLE"):
        manager.find("dataset", "z")


def test_a_factory_that_does_not_import_says_whose_it_is():
    manager = manager_of(candidate("m", dataset("xml", "no_such_module:Thing")), GOOD)
    with pytest.raises(BrokenPlugin, match=r"'xml' of plugin 'acme:m': its factory 'no_such_module:Thing' must import"):
        manager.load("dataset", "xml")
    with pytest.raises(BrokenPlugin, match=r"AttributeError"):
        manager_of(candidate("m", dataset("xml", "collections:Nothing"))).create("dataset", "xml")
    assert manager.load("dataset", "good").__name__ == "Counter"


def test_wrong_parameters_are_refused_with_the_nearest():
    manager = manager_of(candidate("m", dataset("wrap", "textwrap:fill")))
    with pytest.raises(
        BrokenPlugin, match=r"dataset 'wrap': missing a required argument: 'text'; it takes text, width"
    ):
        manager.create("dataset", "wrap")
    manager = manager_of(candidate("m", dataset("dedent", "textwrap:dedent")))
    with pytest.raises(BrokenPlugin, match=r"unknown parameter 'txt'; did you mean 'text'\?"):
        manager.create("dataset", "dedent", txt="x")


def test_registering_an_object_works_like_an_entry_point():
    manager = PluginManager((), {})
    status = manager.register(dataset("mine"), distribution="My_Notebook", entry="cell")
    assert status.identity == "my-notebook:cell"
    assert manager.find("dataset", "mine").full_name == "my-notebook:mine"


def test_the_shared_manager_is_made_once_and_again_on_demand():
    first = get_manager()
    assert get_manager() is first
    assert get_manager(reload=True) is not first
