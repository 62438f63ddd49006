"""Draws that lie where the prior has no parameters, of which a network can know nothing, are doubted."""

import pytest
import torch
from exact_items import GaussianItems
from test_composition_calibrated import compose

from sbi_models.approximators.composition.plan import out_of_reach_notes

ONE = torch.eye(1, dtype=torch.float64)


@pytest.mark.parametrize("d", [1, 2])
@pytest.mark.parametrize("method", ["calibrated", "gauss"])
def test_draws_out_of_reach_of_the_prior_are_doubted(d, method):
    """Three items of which all scores lead 20 sds of the prior away are warned of without a simulator; three
    of theta = 1 are not.

    The default gives draws of the prior then.
    """
    for away, doubted in ((0.0, False), (80.0, True)):
        items = GaussianItems(
            torch.ones(3, d, dtype=torch.float64),
            torch.eye(d, dtype=torch.float64),
            shared=lambda t, a=away: 0 * t + a / 3,
        )
        draws, report = compose(items, method=method)
        said = {
            "calibrated": "The draws are those of the prior",
            "gauss": "of the draws are more than 6 standard deviations of the prior",
        }
        assert any(said[method] in words for words in report.warnings) == doubted
        if doubted and method == "calibrated":
            assert float(draws.mean(dim=0).abs().max()) < 0.1
            assert float((draws.std(dim=0) - 1).abs().max()) < 0.1
        else:
            assert (float(draws.mean()) > 15) == doubted


def test_few_draws_in_the_tail_are_no_reason():
    """One draw in a hundred beyond six sds, as a heavy tail has, says nothing; one in ten does, and draws
    that are not finite do."""
    draws = torch.zeros(1000, 1, dtype=torch.float64)
    moments = (torch.zeros(1, dtype=torch.float64), ONE)
    draws[:10] = 7.0
    assert out_of_reach_notes(draws, moments) == ()
    draws[:100] = 7.0
    assert out_of_reach_notes(draws, moments)[0].startswith("10% of the draws")
    assert out_of_reach_notes(torch.full_like(draws, torch.nan), moments)[0].startswith("100% of the draws")
