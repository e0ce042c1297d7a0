import pytest
from hypothesis import given
from hypothesis import strategies as st

from privkt.synthesis.choices import kept_positions

CASES = [
    ("keep: 1, 3 and 5", (0, 2, 4)),
    ("[1,3]", (0, 2)),
    ("[1, 3, 99]", (0, 2)),
    ("(2) and (4)", (1, 3)),
    ("1", (0,)),
    ("1.", (0,)),
    ("1 3 5", (0, 2, 4)),
    ("#2, #4", (1, 3)),
    ("2-4", (1, 2, 3)),
    ("1 to 3", (0, 1, 2)),
    ("None", ()),
    ("none of them.", ()),
    ("[]", ()),
    ("Keep: none", ()),
    ("all", (0, 1, 2, 3, 4)),
    ("Keep all of them.", (0, 1, 2, 3, 4)),
    ("all but 2", (0, 2, 3, 4)),
    ("All except 2 and 3.", (0, 3, 4)),
    ("Remove 2", (0, 2, 3, 4)),
    ("I would drop 2 and 4, since they repeat 1.", (0, 2, 4)),
    ("I would keep 1 and 3 because 2 repeats 1 and 5 is off topic.", (0, 2)),
    ("Keep 1 and 3, remove 2, 4 and 5.", (0, 2)),
    ("Remove 2 and 4; keep 1, 3, 5", (0, 2, 4)),
    ("Let me look. Text 2 is short.\n\nAnswer: 1, 4", (0, 3)),
    ("**Indices to keep:** [1, 2]", (0, 1)),
    ("The numbers to keep are:\n1, 2", (0, 1)),
    ("1. keep\n2. remove\n3. keep\n4. drop\n5. no", (0, 2)),
    ("1: no\n2: no", ()),
    ("Text 1 - keep\nText 2 - discard", (0,)),
    ('{"keep": [1, 5]}', (0, 4)),
    ("Keep: 1, 3\n\n6. [sports] They won 3 games", (0, 2)),
    ("1. [world] Ministers met 4 times\n3. [world] Rain fell for 2 days", (0, 2)),
    ("", None),
    ("   \n", None),
    ("These texts look fine to me", None),
    ("17", None),
    ("They won 3.5 percent", None),
    ("45%", None),
]


@pytest.mark.parametrize(("answer", "kept"), CASES)
def test_answers_of_models(answer, kept):
    assert kept_positions(answer, 5) == kept


@given(
    st.integers(1, 30).flatmap(lambda n: st.tuples(st.just(n), st.sets(st.integers(1, n), min_size=1))),
    st.sampled_from(["keep: {}", "[{}]", "{}", "Answer: {}.", "Indices: [{}]", "I keep {}", "```\n{}\n```"]),
    st.sampled_from([", ", ",", "; ", " "]),
)
def test_any_set_is_read_back(case, layout, comma):
    count, chosen = case
    answer = layout.format(comma.join(map(str, sorted(chosen))))
    if comma == "; ":
        answer = answer.replace(";", ",")
    assert kept_positions(answer, count) == tuple(sorted(n - 1 for n in chosen))


@given(st.text(max_size=60), st.integers(1, 9))
def test_nothing_outside_the_cluster_is_ever_kept(answer, count):
    kept = kept_positions(answer, count)
    assert kept is None or all(0 <= i < count for i in kept)
