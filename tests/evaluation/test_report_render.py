"""report.html: whole, without outside assets, and true for every kind of run."""

import re
from html.parser import HTMLParser

import pytest

from privkt.evaluation.report.build import build_report
from privkt.evaluation.report.charts import arms_chart
from privkt.evaluation.report.render import canaries, protection, render_html, summaries, write_report
from privkt.evaluation.report.summary import MetricSummary

SCORES = {
    "private data alone": {"accuracy": 0.61, "macro_f1": 0.6},
    "private + LLM without demonstrations": {"accuracy": 0.6, "macro_f1": 0.58},
    "FDKT": {"accuracy": 0.7, "macro_f1": 0.69},
    "raw demonstrations (not private, upper bound)": {"accuracy": 0.8, "macro_f1": 0.79},
}
VOID = {"meta", "br", "img", "link", "input", "hr"}


class Page(HTMLParser):
    """Text and tags of a page; fails on tags that do not match."""

    def __init__(self, source):
        super().__init__()
        self.open, self.tags, self.text = [], [], []
        self.feed(source)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        if not self.open or self.open[-1] != "style":
            self.text.append(data)

    @property
    def words(self):
        return re.sub(r"\s+", " ", " ".join(self.text))


def page_of(run):
    html, _ = write_report(run.path)
    return Page(html.read_text(encoding="utf-8"))


@pytest.fixture
def whole(written):
    """Two clients, two seeds, all arms, planted names."""
    run = written(clients=("a", "b"), seeds=(0, 1))
    for name in "ab":
        run.charge(name)
        for seed in (0, 1):
            scores = {arm: {m: v + seed / 50 for m, v in values.items()} for arm, values in SCORES.items()}
            overlap = {
                "synthetic": {"texts": 8.0, "canaries": 5.0, "canaries_repeated": 0.0},
                "fdkt": {"texts": 4.0, "canaries": 5.0, "canaries_repeated": float(name == "b")},
            }
            run.end(name, seed, scores=scores, overlap=overlap, drawing={"dropped": {"<short>": 3}, "empty": {}})
    run.finish()
    return run


@pytest.fixture
def unscored(written):
    """One client's finished run without evaluation rows."""
    run = written()
    run.charge()
    run.end()
    run.finish()
    return run


def test_a_whole_run_is_one_page(whole):
    page = page_of(whole)
    for fact in (
        "Client a", "Client b", "mean and standard deviation over 2 seeds", "0.710 ± 0.014", "private data alone",
        "nothing about records crossed", "0 of 5", "1 of 5", "All clients together", "otherwise up to 6 (the sum)",
        "canaries repeated", "<short> 3", "What this does not cover", "keep it here", "of a cap of ε = 9",
    ):  # fmt: skip
        assert fact in page.words, fact
    assert "not finished" not in page.words
    assert page.words.count("ε = 3") >= 4
    assert [tag for tag, _ in page.tags].count("svg") == 2


def test_what_the_scores_rest_on_and_what_has_no_guarantee_is_said(written, capsys):
    from privkt.cli.tables import print_report
    from privkt.runtime.run_directory import HELD_OUT

    run = written()
    run.run.event(HELD_OUT, client="a", rows=37)
    planted = {"texts": 8.0, "canaries": 5.0, "canaries_repeated": 0.0, "canaries_in_the_data": 3.0}
    run.end(scores=SCORES, overlap={"made": planted}, epsilon="inf")
    run.finish()
    words = page_of(run).words
    assert "On 37 held-out rows." in words
    assert "2 of them do not stand in the private texts" in words
    assert "What this run hands over has no guarantee." in words
    print_report(build_report(run.path))
    said = " ".join(capsys.readouterr().out.split())
    assert "scored on 37 held-out rows" in said
    assert "2 of them do not stand in the private texts and could not come out" in said


def test_neither_is_said_where_it_is_not_so(whole):
    words = page_of(whole).words
    assert "On held-out rows, mean" in words  # a run of an earlier version did not note how many
    assert "do not stand in the private texts" not in words
    assert "has no guarantee" not in words


def test_how_much_an_arm_learnt_from_stands_beside_its_scores(written, capsys):
    from privkt.cli.tables import print_report

    run = written()
    run.charge()
    arms = {arm: {"protection": "none"} for arm in SCORES}
    arms[next(iter(SCORES))]["learnt_from"] = "500 answers, 93 of 500 rationales"
    run.end(scores=SCORES, arms=arms)
    run.finish()
    assert "learnt from" in page_of(run).words
    assert "500 answers, 93 of 500 rationales" in page_of(run).words
    print_report(build_report(run.path))
    said = " ".join(capsys.readouterr().out.split())
    assert "learnt from" in said
    assert "rationales" in said


def test_only_a_promise_about_empty_records_is_restated_for_replaced_ones(unscored):
    report = build_report(unscored.path)
    assert "is replaced instead of emptied" in Page(render_html(report)).words
    report["clients"]["a"]["trainings"][0]["neighbouring"] = "local"
    assert "is replaced instead" not in Page(render_html(report)).words


def test_the_page_asks_nothing_of_the_network_and_runs_nothing(whole):
    source = write_report(whole.path)[0].read_text()
    page = Page(source)
    tags = {tag for tag, _ in page.tags}
    assert not tags & {"script", "link", "img", "iframe", "object", "embed", "form", "base"}
    for _, attributes in page.tags:
        for name, value in attributes.items():
            assert not name.startswith("on")
            if name in ("src", "href", "xlink:href", "action"):
                assert value.startswith("#"), value
    assert "@import" not in source
    assert not re.search(r"url\((?!#)", source)


def test_one_client_without_evaluation(unscored):
    words = page_of(unscored).words
    assert "Nothing was scored: the config has no evaluation data." in words
    assert "Client a" not in words
    assert "All clients together" not in words


def test_an_unfinished_run_says_so(written):
    words = page_of(written()).words
    assert "not finished" in words
    assert "Nothing was scored yet." in words
    assert "nothing yet" in words


def test_an_infinite_spend_is_an_alarm(written):
    run = written()
    run.charge()
    run.force()
    run.end(scores=SCORES)
    words = page_of(run).words
    assert "Something without a guarantee left “data-a”. Its total epsilon is infinite" in words
    assert "∞" in words
    assert "unprotected: publish" in words
    assert "nan" not in words.lower().split()


def test_names_from_a_config_cannot_write_html(written):
    run = written()
    run.end(scores={"<b>bold</b>": {"accuracy": 0.5}}, odd={"<script>": "<img src=x>"})
    page = page_of(run)
    assert "<b>bold</b>" in page.words
    assert "script" not in {tag for tag, _ in page.tags}
    assert "img" not in {tag for tag, _ in page.tags}


def test_a_method_that_says_nothing_of_its_arms_is_shown_without(written):
    run = written()
    run.charge()
    run.end(scores={"all": {"rows": 9.0}}, arms={}, main=None)
    client = build_report(run.path)["clients"]["a"]
    assert protection(client, "all") == ""
    assert canaries(client) is None
    assert "9.000" in render_html(build_report(run.path))


def test_what_protects_an_arm(whole):
    client = build_report(whole.path)["clients"]["a"]
    assert [protection(client, arm) for arm in SCORES] == [
        "nothing crossed",
        "nothing about records crossed",
        "ε = 3",
        "none",
    ]
    assert summaries(client)["FDKT"]["accuracy"].seeds == 2


def test_a_chart_is_the_same_each_time_and_has_its_names_as_text():
    scores = {arm: {m: MetricSummary(v, 0.02, 3) for m, v in values.items()} for arm, values in SCORES.items()}
    chart = arms_chart(scores, "accuracy", main="FDKT", not_private=["raw demonstrations (not private, upper bound)"])
    assert chart.startswith("<svg")
    assert all(arm in chart for arm in SCORES)
    assert "0.700" in chart
    again = arms_chart(scores, "accuracy", main="FDKT", not_private=["raw demonstrations (not private, upper bound)"])
    assert chart == again


@pytest.mark.parametrize("value", [0.0, -0.4, 1.0, 250.0])
def test_a_chart_takes_any_finite_score(value):
    assert f"{value:.3f}".replace("-", "") in arms_chart({"a": {"m": MetricSummary(value, 0.0, 1)}}, "m")
