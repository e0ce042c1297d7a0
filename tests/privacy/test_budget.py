import math

import pytest

from privkt.privacy import Budget, InvalidBudget, RefusedInput, default_delta


@pytest.mark.parametrize("epsilon", [0.0, -1.0, math.nan, math.inf])
def test_an_impossible_epsilon_is_refused(epsilon):
    with pytest.raises(InvalidBudget, match=r"budget\.epsilon must be a finite number > 0, got"):
        Budget(epsilon, 1e-5)


@pytest.mark.parametrize("delta", [0.0, 1.0, -1e-5, math.nan])
def test_an_impossible_delta_is_refused(delta):
    with pytest.raises(InvalidBudget, match=r"budget\.delta must lie strictly between 0 and 1, got"):
        Budget(1.0, delta)


def test_delta_of_one_over_n_is_refused_and_its_twin_below_passes():
    with pytest.raises(InvalidBudget, match=r"must stay below 1/N = 0\.001 for N = 1000 records, got 0\.001"):
        Budget(1.0, 1e-3).validate_for(1000)
    Budget(1.0, 0.999e-3).validate_for(1000)


def test_a_papers_delta_runs_with_a_warning():
    with pytest.warns(UserWarning, match="allows a whole record to be published"):
        Budget(1.0, 1e-3, reproduce=True).validate_for(1000)


def test_an_empty_data_set_is_refused():
    with pytest.raises(InvalidBudget, match="size must be at least 1, got 0"):
        Budget(1.0, 1e-5).validate_for(0)


def test_the_default_delta_always_passes():
    for n in (1, 2, 9, 9_999, 10_001, 10**7):
        Budget(1.0, default_delta(n)).validate_for(n)


def test_refusals_end_the_command_line_with_code_2():
    assert InvalidBudget.exit_code == RefusedInput.exit_code == 2
    assert issubclass(InvalidBudget, ValueError)
