"""The losses of transfer and distillation: what the method's page says can be checked cheaply."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from privkt_post.losses import direction_loss, divergence, kept_divergence, kept_top, transfer_losses
from privkt_post.transferring import fitted_alpha

T = 2.0


def scores(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 3


def losses(a, b, c, d, alpha):
    return transfer_losses(a, b, c, d, alpha=alpha, temperature=T)


def test_equal_models_behind_equal_prompts_lose_nothing_and_do_not_move():
    behind, bare = scores(5, 11), scores(5, 11, seed=1)
    moving = behind.clone().requires_grad_(True)
    for alpha in (0.0, 0.3, 1.0):
        found = losses(behind, bare, moving, bare, alpha)
        (slope,) = torch.autograd.grad(found.sum(), moving)
        assert found.abs().max() < 1e-14
        assert slope.abs().max() < 1e-14


def test_alpha_at_its_ends_gives_the_pure_terms():
    a, b, c, d = (scores(5, 11, seed=i) for i in range(4))
    output, shift = divergence(a, c, T), divergence(a - b, c - d, T)
    assert torch.equal(losses(a, b, c, d, 0.0), output)
    assert torch.equal(losses(a, b, c, d, 1.0), shift)
    torch.testing.assert_close(losses(a, b, c, d, 0.25), 0.75 * output + 0.25 * shift)


def test_a_vector_added_to_both_of_the_large_models_scores_leaves_the_shift():
    a, b, c, d, v = (scores(5, 11, seed=i) for i in range(5))
    torch.testing.assert_close(losses(a, b, c + v, d + v, 1.0), losses(a, b, c, d, 1.0))
    assert not torch.allclose(losses(a, b, c + v, d + v, 0.5), losses(a, b, c, d, 0.5))


def test_the_divergence_is_the_textbook_one_times_the_squared_temperature():
    teacher, student = scores(3, 7), scores(3, 7, seed=1)
    wanted = (
        F.kl_div(F.log_softmax(student / T, -1), F.log_softmax(teacher / T, -1), reduction="none", log_target=True).sum(
            -1
        )
        * 4
    )
    torch.testing.assert_close(divergence(teacher, student, T), wanted)


@given(k=st.integers(1, 13), seed=st.integers(0, 1000))
def test_what_is_kept_of_a_teacher_sums_to_one_and_bounds_the_divergence_from_below(k, seed):
    teacher, student = scores(4, 13, seed=seed).float(), scores(4, 13, seed=seed + 1).float()
    ids, logs, rest = kept_top(teacher, k, T)
    torch.testing.assert_close(logs.exp().sum(-1) + rest.exp(), torch.ones(4))
    full = divergence(teacher, student, T)
    kept = kept_divergence(ids, logs, rest, student, T)
    assert (kept <= full + 1e-4).all()
    if k == 13:
        torch.testing.assert_close(kept, full, rtol=1e-4, atol=1e-5)


def test_a_student_that_agrees_loses_nothing_whatever_is_kept():
    """Renormalising the kept tokens would ask it to give them more than the large model does."""
    teacher = scores(4, 13).float()
    student = teacher.clone().requires_grad_(True)
    loss = kept_divergence(*kept_top(teacher, 3, T), student, T).sum()
    loss.backward()
    assert abs(loss.item()) < 1e-5
    assert student.grad.abs().max() < 1e-5


def test_directions():
    a = torch.tensor([[1.0, 0.0], [2.0, 2.0]])
    assert torch.allclose(direction_loss(a, 3 * a), torch.zeros(2), atol=1e-6)
    assert torch.allclose(direction_loss(a, -a), torch.full((2,), 2.0))


@pytest.mark.parametrize(
    ("zero_shot", "tuned", "classes", "alpha"),
    [
        (0.7225, 0.6754, 2, 1.0),  # RoBERTa-base on sst2 at epsilon 8: the small model is the worse one
        (0.7225, 0.793, 2, 0.76),  # the published 0.76
        (0.5298, 0.6716, 6, 0.719),  # GPT2-XL on arisetv
        (0.48, 0.9, 2, 0.0),
        (0.9, 0.5, 2, 1.0),
    ],
)
def test_the_heuristic_for_alpha(zero_shot, tuned, classes, alpha):
    assert fitted_alpha(zero_shot, tuned, 1 / classes) == pytest.approx(alpha, abs=1e-3)
