"""Arguments of EnsembleWorkflow: sizes, networks of members, and what does not fit together."""

import numpy as np
import pytest
from linear_gaussian import SIMULATOR, ensemble

import sbi_models as bf
from sbi_models.errors import ConfigurationError
from sbi_models.networks import CouplingFlow, DeepSet, FlowMatching, ScoringRuleNetwork

FLOW = FlowMatching(widths=(16, 16), steps=8)


def test_summary_variables_have_a_default_network():
    """The guide's size-mode snippet runs: summary variables without a summary network are summarized by a
    TimeSeriesTransformer each."""
    made = bf.EnsembleWorkflow(
        simulator=SIMULATOR,
        inference_variables=["theta"],
        summary_variables=["x"],
        inference_networks=bf.networks.FlowMatching(),
        ensemble_size=2,
    )
    summaries = [member.summary_network for member in made.approximator.members.values()]
    assert all(isinstance(network, bf.networks.TimeSeriesTransformer) for network in summaries)
    assert summaries[0] is not summaries[1]


@pytest.mark.parametrize("size", [0, 1, -3, 2.0, 2.5, "2", True, None, [2]])
def test_ensemble_sizes_that_are_none_are_refused(size):
    """A size is an integer of at least 2."""
    with pytest.raises(ConfigurationError, match="ensemble_size as an integer of at least 2"):
        ensemble(ensemble_size=size)


def test_any_integer_type_is_a_size():
    """NumPy integers are integers."""
    assert list(ensemble(ensemble_size=np.int64(3)).approximator.members) == ["0", "1", "2"]


TWO = {"flow": FLOW, "coupling": CouplingFlow()}
SET = {
    "inference_conditions": None,
    "summary_variables": ["x"],
    "ensemble_size": None,
    "inference_networks": TWO,
}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"inference_networks": TWO, "ensemble_size": 2}, "ensemble_size goes with one inference network"),
        ({"inference_networks": {"flow": FLOW}, "ensemble_size": None}, "at least two members"),
        ({"inference_networks": {}, "ensemble_size": None}, "at least two members"),
        ({"inference_networks": [FLOW, FLOW], "ensemble_size": 2}, "Expected a InferenceNetwork"),
        ({"inference_networks": {"a": FLOW, "b": 3}, "ensemble_size": None}, "Expected a InferenceNetwork"),
        (
            {"inference_networks": {"a": FLOW, "b": ScoringRuleNetwork(["mean"])}, "ensemble_size": None},
            "only point estimates for 'b'",
        ),
        (
            SET | {"summary_networks": {"flow": DeepSet(), "couplin": DeepSet()}},
            r"no member 'couplin' for a .*Did you mean 'coupling'\?",
        ),
        (
            SET | {"summary_networks": {"flow": DeepSet()}},
            "summary network for every member, got none for 'coupling'",
        ),
        ({"summary_networks": DeepSet()}, "summary_variables and summary_network go together"),
        ({"summary_network": DeepSet()}, r"no argument 'summary_network'. Did you mean 'summary_networks'\?"),
        (
            {"inference_network": FLOW},
            r"no argument 'inference_network'. Did you mean 'inference_networks'\?",
        ),
    ],
)
def test_arguments_that_do_not_fit_are_refused(arguments, message):
    """Sizes beside dicts, too few members, no networks, members without draws, and summary networks for
    nobody are errors with a cure."""
    with pytest.raises(ConfigurationError, match=message):
        ensemble(**arguments)
