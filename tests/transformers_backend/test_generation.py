"""Generation: the same text whatever the batch, and the text that was asked for."""

import pytest
import torch

from privkt.contracts import BackendError, ChatTurn, Sampling

PROMPTS = ["a", "The weather is nice today, and", "Once", "Why not?", "12345 67890 12345", "b", "Hello there"]


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(max_new_tokens=12, temperature=0),
        Sampling(max_new_tokens=12, seed=3),
        Sampling(max_new_tokens=12, seed=3, top_k=5),
        Sampling(max_new_tokens=12, seed=3, top_p=0.8, temperature=0.7),
        Sampling(max_new_tokens=12, seed=3, top_k=20, top_p=0.9, repetition_penalty=1.3),
    ],
    ids=["greedy", "all", "top-k", "top-p", "everything"],
)
def test_batching_changes_no_answer(llama, sampling):
    whole = llama(batch_tokens=10_000).generate(PROMPTS, sampling)
    some = llama(batch_tokens=100).generate(PROMPTS, sampling)
    single = llama(batch_tokens=1).generate(PROMPTS, sampling)
    assert whole == some == single


def test_greedy_is_what_transformers_generates(llama):
    backend = llama()
    loaded = backend.loaded
    for prompt in PROMPTS[:3]:
        ids = loaded.tokenizer(prompt, return_tensors="pt")["input_ids"]
        expected = loaded.network.generate(ids, max_new_tokens=10, do_sample=False)[0, ids.shape[1] :]
        text = loaded.tokenizer.decode(expected, skip_special_tokens=True)
        assert backend.generate([prompt], Sampling(max_new_tokens=10, temperature=0))[0].text == text


def test_a_repetition_penalty_is_what_transformers_does(llama):
    backend = llama()
    loaded = backend.loaded
    ids = loaded.tokenizer(PROMPTS[1], return_tensors="pt")["input_ids"]
    expected = loaded.network.generate(ids, max_new_tokens=10, do_sample=False, repetition_penalty=1.5)
    text = loaded.tokenizer.decode(expected[0, ids.shape[1] :], skip_special_tokens=True)
    sampling = Sampling(max_new_tokens=10, temperature=0, repetition_penalty=1.5)
    assert backend.generate([PROMPTS[1]], sampling)[0].text == text


def test_seeds_differ_and_rows_with_one_prompt_differ(llama):
    backend = llama()
    one = backend.generate(["a"] * 4, Sampling(max_new_tokens=12, seed=1))
    two = backend.generate(["a"] * 4, Sampling(max_new_tokens=12, seed=2))
    assert len({g.text for g in one}) == 4
    assert one != two


def test_more_prompts_after_a_row_do_not_change_it(llama):
    backend = llama()
    few = backend.generate(PROMPTS[:2], Sampling(max_new_tokens=12, seed=1))
    many = backend.generate(PROMPTS, Sampling(max_new_tokens=12, seed=1))
    assert many[:2] == few


def test_stop_strings_are_cut_off(llama):
    backend = llama()
    whole = backend.generate(PROMPTS, Sampling(max_new_tokens=20, seed=5))
    stop = whole[1].text[6:8]
    cut = backend.generate(PROMPTS, Sampling(max_new_tokens=20, seed=5, stop=(stop, "never-there")))
    for before, after in zip(whole, cut, strict=True):
        if stop in before.text:
            assert after.text == before.text[: before.text.index(stop)]
            assert after.finish == "stop"
            assert after.tokens <= before.tokens
        else:
            assert after == before


def test_the_end_token_ends_and_is_not_in_the_text(llama):
    backend = llama()
    end = backend.loaded.tokenizer.eos_token
    answers = backend.generate(["a"] * 64, Sampling(max_new_tokens=40, seed=0, temperature=3.0))
    assert all(end not in answer.text for answer in answers)
    assert {answer.finish for answer in answers} == {"stop", "length"}
    assert all(answer.tokens == 40 for answer in answers if answer.finish == "length")


def test_progress_counts_every_token(llama, progress):
    llama().generate(PROMPTS, Sampling(max_new_tokens=9, seed=0, stop=("e",)), progress)
    (task,) = progress.tasks
    assert task["done"] == task["total"] == 9 * len(PROMPTS)


def test_a_prompt_that_does_not_fit_is_named_by_its_index_alone(llama):
    with pytest.raises(BackendError, match=r"prompt 1: 300 tokens and 8 new ones must fit .* 256") as caught:
        llama().generate(["a", "x" * 300], Sampling(max_new_tokens=8))
    assert "xxx" not in str(caught.value)


def test_an_empty_prompt_is_continued(llama):
    assert llama().generate([""], Sampling(max_new_tokens=4, temperature=0))[0].tokens > 0


def test_conversations_without_a_template_are_laid_out_plainly(llama):
    backend = llama()
    turns = (ChatTurn("system", "Be brief."), ChatTurn("user", "Hello"))
    laid_out = "System: Be brief.\n\nUser: Hello\n\nAssistant:"
    greedy = Sampling(max_new_tokens=6, temperature=0)
    assert backend.generate([turns], greedy) == backend.generate([laid_out], greedy)


def test_conversations_use_the_chat_template(llama):
    backend = llama()
    template = "{% for m in messages %}[{{ m['role'] }}]{{ m['content'] }}{% endfor %}[me]"
    backend.loaded.tokenizer.chat_template = template
    try:
        greedy = Sampling(max_new_tokens=6, temperature=0)
        found = backend.generate([(ChatTurn("user", "Hello"),)], greedy)
        assert found == backend.generate(["[user]Hello[me]"], greedy)
    finally:
        backend.loaded.tokenizer.chat_template = None


def test_scores_that_are_not_numbers_are_refused(llama):
    from privkt_transformers.sampling import choose

    logits = torch.tensor([[1.0, float("nan")]])
    with pytest.raises(BackendError, match="finite"):
        choose(logits, Sampling(), torch.tensor([0.5]))
