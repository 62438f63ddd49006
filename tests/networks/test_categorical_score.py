"""The rule for categories: proper, with probabilities, alone, and through an approximator."""

import itertools

import numpy as np
import pytest
import torch

import sbi_models as bf
from sbi_models.adapters import Adapter
from sbi_models.errors import ConfigurationError
from sbi_models.networks import CategoricalScore, ScoringRuleNetwork


@pytest.mark.parametrize("loss", ["log", "brier"])
def test_the_expected_score_is_lowest_at_the_truth(loss):
    """Of exact probabilities of four categories, it rises with every step from one category to another; the
    gradient with respect to the head is zero at the truth."""
    rule = CategoricalScore(loss)
    rule.learn(((0, "categorical", 4),), 1)
    truth = torch.tensor([0.5, 0.3, 0.15, 0.05], dtype=torch.float64)
    theta = torch.arange(4.0, dtype=torch.float64)[:, None]

    def expected(logs):
        return (truth * rule.score(logs.expand(4, 1, 4), theta)).sum()

    head = truth.log()[None].requires_grad_()
    best = expected(rule.predict(head, 1))
    (slope,) = torch.autograd.grad(best, head)
    best = float(best.detach())
    assert float(slope.abs().max()) < 1e-12
    for a, b in itertools.permutations(range(4), 2):
        moved = truth.clone()
        moved[a] += 0.02
        moved[b] -= 0.02
        assert float(expected(moved.log()[None, None])) > best + 1e-5


def test_scores_by_hand():
    """Two columns of three and two categories: minus the sum of logs, and the sum of squares."""
    theta = torch.tensor([[2.0, 0.0]], dtype=torch.float64)
    p, q = torch.tensor([0.2, 0.3, 0.5], dtype=torch.float64), torch.tensor([0.9, 0.1], dtype=torch.float64)
    expected = {"log": -np.log(0.5 * 0.9), "brier": 0.2**2 + 0.3**2 + 0.5**2 + 2 * 0.1**2}
    for loss, value in expected.items():
        rule = CategoricalScore(loss)
        rule.learn(((0, "categorical", 3), (1, "categorical", 2)), 2)
        logs = rule.predict(torch.cat([p, q]).log()[None], 2)
        assert logs.exp().sum(dim=-1).tolist() == [pytest.approx([1.0, 1.0])]
        assert float(rule.score(logs, theta)) == pytest.approx(value)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: CategoricalScore("hinge"), "loss as 'log' or 'brier'"),
        (lambda: ScoringRuleNetwork(["mean", "categorical"]), "categories alone or of numbers alone"),
        (lambda: ScoringRuleNetwork("categorical").build(2, 1), r"categories in all 2 .*as_categorical"),
    ],
)
def test_what_does_not_fit_is_refused(make, message):
    """A wrong loss, rules that score other things, and columns that nobody has declared."""
    with pytest.raises(ConfigurationError, match=message):
        make()


@pytest.mark.nightly
def test_probabilities_of_a_posterior():
    """Two normal classes with a prior of .7 and .3: probabilities within .06 of the exact posterior, sums 1,
    with the values of the categories; from a file, too, and split."""
    rng = np.random.default_rng(0)
    choice = np.where(rng.uniform(size=(6000, 1)) < 0.3, 5.0, 2.0)
    x = choice + rng.normal(size=(6000, 1)) * 1.5
    workflow = bf.BasicWorkflow(
        inference_variables="choice",
        inference_conditions="x",
        inference_network=ScoringRuleNetwork("categorical", widths=(32, 32)),
        adapter=Adapter().as_categorical("choice"),
        standardize="all",
        seed=1,
    )
    workflow.fit_offline({"choice": choice, "x": x}, epochs=12, batch_size=128)
    at = np.linspace(0.0, 7.0, 15)[:, None]
    found = workflow.estimate({"x": at})["categorical"]
    assert set(found) == {"choice", "choice_values"}
    assert found["choice_values"].tolist() == [[2.0, 5.0]] * 15
    np.testing.assert_allclose(found["choice"].sum(axis=1), 1.0, atol=1e-6)
    weights = np.array([0.7, 0.3]) * np.exp(-0.5 * ((at - [2.0, 5.0]) / 1.5) ** 2)
    np.testing.assert_allclose(found["choice"], weights / weights.sum(axis=1, keepdims=True), atol=0.06)
    assert set(workflow.estimate({"x": at}, split=True)["categorical"]) == {"choice_0", "choice_0_values"}
