import pytest
from hypothesis import given
from hypothesis import strategies as st

from privkt.contracts import LabelledText
from privkt.privacy import RefusedInput
from privkt.synthesis.parsing import labelled_texts
from privkt.synthesis.templates import Template, TemplateConfig, make_template, one_line

AGNEWS = make_template(TemplateConfig(name="agnews"), ("0", "1", "2", "3"))
YELP = make_template(TemplateConfig(name="yelp", domain="Cafes"), ("1", "2", "3", "4", "5"))
CUSTOM = make_template(
    TemplateConfig(
        control="<{domain}> mood = {label} (guest book)",
        domain="Hotels",
        label_names={"neg": "not pleased", "pos": "pleased"},
    ),
    ("neg", "pos"),
)


def test_codes_of_the_page():
    assert AGNEWS.code("3") == "Product type: AGnews | Text Category: science and technology"
    assert YELP.code("4") == "Product type: Cafes | Review Score: 4"
    assert CUSTOM.code("pos") == "<Hotels> mood = pleased (guest book)"


@pytest.mark.parametrize("labels", [("World", "Sports", "Business", "Sci/Tech"), ("world", "sport", "2", "sci_tech")])
def test_agnews_knows_the_names_in_use(labels):
    template = make_template(TemplateConfig(name="agnews"), labels)
    assert template.code(labels[3]).endswith("science and technology")


words = st.lists(
    st.text(st.characters(categories=("Ll", "Lu", "Lo", "Nd")), min_size=1, max_size=8), min_size=3, max_size=12
).map(lambda w: "x " + " ".join(w) + " y")


@given(
    st.sampled_from([AGNEWS, YELP, CUSTOM]).flatmap(
        lambda t: st.tuples(st.just(t), st.lists(st.tuples(words, st.sampled_from(t.labels)), min_size=1, max_size=6))
    )
)
def test_what_is_rendered_is_read_back(case):
    template, rows = case
    parsed, report = labelled_texts(template.render_all(rows), template)
    assert parsed == [LabelledText(one_line(text), label) for text, label in rows]
    assert report.rows == len(rows)
    assert not report.unparsed


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("Product type: AGnews | Text Category: world.", ("0", "")),
        ("product type:agnews|text category:  WORLD", ("0", "")),
        ("2. **Product type: AGnews | Text Category: sports**", ("1", "")),
        ("- Product type: AGnews | Text Category: Science & Technology", ("3", "")),
        ("Product type: AGnews | Text Category: business Shares fell on Monday", ("2", "Shares fell on Monday")),
        ("Product type: AGnews | Text Category: world Sports ministers met", ("0", "Sports ministers met")),
        ("Product type: AGnews | Text Category: world, sports or business", (None, "")),
        ("Product type: AGnews | Text Category: weather", (None, "")),
        ("A text on world affairs", None),
    ],
)
def test_codes_are_read_tolerantly(line, expected):
    assert AGNEWS.read_code(line) == expected


def test_what_follows_the_label_in_a_code_is_no_text():
    assert CUSTOM.read_code("<Hotels> mood = not pleased (guest book) Cold rooms.") == ("neg", "Cold rooms.")
    assert CUSTOM.read_code("<Hotels> mood = not pleased (guest book)") == ("neg", "")


@pytest.mark.parametrize("score", ["4", "4/5", "4 stars", "4.", "**4**"])
def test_a_score_may_say_out_of_how_much(score):
    assert YELP.read_code(f"Product type: Cafes | Review Score: {score}") == ("4", "")


@pytest.mark.parametrize(
    ("config", "labels", "said"),
    [
        ({}, ("a", "b"), "template.control must be given for a custom template"),
        ({"control": "no field"}, ("a", "b"), "must contain {label} once"),
        ({"control": "{label} {label}"}, ("a", "b"), "must contain {label} once"),
        ({"control": "T {label} {size}"}, ("a", "b"), "must contain {label} once"),
        ({"control": "T {label"}, ("a", "b"), "braces must be balanced"),
        ({"control": "{label}"}, ("a", "b"), "fixed word before {label}"),
        ({"control": "T\n{label}"}, ("a", "b"), "must be one line"),
        ({"control": "{domain}: {label}"}, ("a", "b"), "fixed word before {label}"),
        ({"control": "T {domain}: {label}"}, ("a", "b"), "template.domain must be given"),
        ({"control": "T: {label}"}, ("a", "A."), "names must differ"),
        ({"control": "T: {label}"}, ("a", "--"), "must have a letter or digit"),
        ({"control": "T: {label}", "label_names": {"c": "d"}}, ("a", "b"), "keys must be declared labels"),
        ({"control": "T: {label}"}, (), "data.labels must list every label"),
        ({"control": "T: {label}"}, None, "data.labels must list every label"),
        ({"name": "agnews"}, ("world", "weather"), "label 'weather' must be one of"),
    ],
)
def test_unusable_templates_are_refused(config, labels, said):
    with pytest.raises(RefusedInput, match=said.replace("{", r"\{").replace(".", r"\.")):
        make_template(TemplateConfig(**config), labels)


def test_the_twin_that_differs_in_one_thing_is_accepted():
    assert make_template(TemplateConfig(control="T: {label}"), ("a", "b")).labels == ("a", "b")


def test_an_example_is_code_then_text():
    example = YELP.example("Two\nlines.", "2")
    assert (example.prompt, example.completion) == ("Product type: Cafes | Review Score: 2\n", "Two lines.")


def test_an_undeclared_label_is_refused_without_being_shown():
    with pytest.raises(RefusedInput) as refused:
        YELP.code("canary-7731")
    assert "canary" not in str(refused.value)


def test_braces_can_be_written():
    template = Template("Set {{x}}: {label}", {"a": "a", "b": "b"})
    assert template.code("a") == "Set {x}: a"
    assert template.read_code("Set {x}: b") == ("b", "")
