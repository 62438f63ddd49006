"""Networks and subnets by name, inside each other, and arguments that cannot be."""

import inspect
import json

import pytest
import torch
from network_contract import rng, shipped

from sbi_models.errors import ConfigurationError, ModelFileError
from sbi_models.networks import (
    DeepSet,
    FlowMatching,
    InferenceNetwork,
    Network,
    SummaryNetwork,
    network_from_json,
    register,
    resolve,
)
from sbi_models.networks.layers import SUBNETS, make_subnet, register_subnet


def test_names_classes_and_instances_are_resolved():
    """A name, a class and an instance all give a network; an instance stays itself."""
    network = FlowMatching()
    assert resolve(network, InferenceNetwork) is not network  # a clone, so that workflows share no weights
    assert resolve(network, InferenceNetwork).config == network.config
    assert isinstance(resolve("flow_matching", InferenceNetwork), FlowMatching)
    assert isinstance(resolve(DeepSet, SummaryNetwork), DeepSet)


@pytest.mark.parametrize(
    ("network", "message"),
    [
        ("flow_maching", r"Unknown InferenceNetwork 'flow_maching'. Did you mean 'flow_matching'"),
        ("deep_set", r"Unknown InferenceNetwork 'deep_set'"),
        (DeepSet, "Expected a InferenceNetwork, its class or its name"),
        (DeepSet(), "Expected a InferenceNetwork, its class or its name"),
        (3, "its class or its name, got 3"),
    ],
)
def test_networks_of_the_wrong_kind_are_refused(network, message):
    """A misspelt name and a network of the other contract are refused with what is known."""
    with pytest.raises(ConfigurationError, match=message):
        resolve(network, InferenceNetwork)


def test_files_name_only_registered_networks():
    """JSON with an unknown name is refused, with the nearest known one and a cure."""
    with pytest.raises(
        ModelFileError, match=r"unknown network 'deep_sett'. Did you mean 'deep_set'.*Register your own"
    ):
        network_from_json({"name": "deep_sett", "config": {}, "built_with": None})


def test_the_signature_of_a_class_is_that_of_its_constructor():
    """Also of a class that has no constructor of its own, and of one that inherits it."""

    class Plain(Network):
        """A network without arguments."""

    class Inherited(DeepSet):
        """A network with the arguments of another."""

    assert not inspect.signature(Plain).parameters
    assert list(inspect.signature(Inherited).parameters) == ["summary_dim", "widths", "head_widths"]
    with pytest.raises(ConfigurationError, match=r"Plain has no argument 'width'\. Known: none"):
        Plain(width=1)


def test_a_name_is_registered_once():
    """Another class under a name that is taken is refused; the same class may come again."""
    with pytest.raises(ConfigurationError, match=r"new name for a network, got 'deep_set'.*DeepSet has"):
        register("deep_set")(type("Other", (DeepSet,), {}))
    assert register("deep_set")(DeepSet) is DeepSet
    assert DeepSet.registered_name == "deep_set"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"widths": (32, 16)}, r"equal widths, for residual blocks, got \(32, 16\)"),
        ({"widths": ()}, "one or more widths of at least 1"),
        ({"widths": "tiny"}, r"Unknown size 'tiny'.*small"),
        ({"subnet": "residul"}, r"Unknown subnet 'residul'. Did you mean 'residual'"),
        ({"widths": (0,)}, "at least 1"),
        ({"steps": 0}, "steps as a positive integer, got 0"),
        ({"steps": 2.5}, "steps as a positive integer, got 2.5"),
        ({"noise_per_pair": 0}, "noise_per_pair as a positive integer, got 0"),
        ({"grading": 0.5}, "at least 1"),
    ],
)
def test_flow_matching_refuses_sizes_that_cannot_be(arguments, message):
    """Sizes below one and unequal widths are refused by the constructor, not by the first batch."""
    with pytest.raises(ConfigurationError, match=message):
        FlowMatching(**arguments)


@pytest.mark.parametrize("subnet", shipped(SUBNETS))
@pytest.mark.parametrize("condition_dim", [0, 3])
@pytest.mark.parametrize("has_time", [True, False])
def test_subnets_broadcast_and_start_at_zero(subnet, condition_dim, has_time):
    """Conditions and times of one row serve many rows of x, with the same result as repeated ones; the output
    starts at zero."""
    network = make_subnet(subnet, 2, 4, condition_dim, (16, 16), has_time=has_time).double()
    x, conditions = (
        torch.randn(3, 5, 2, dtype=torch.float64),
        torch.randn(3, 1, condition_dim, dtype=torch.float64),
    )
    t = torch.rand(1, 5, 1, dtype=torch.float64) if has_time else None
    assert torch.equal(network(x, conditions, t), torch.zeros(3, 5, 4, dtype=torch.float64))
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    wide = network(x, conditions.expand(3, 5, condition_dim), None if t is None else t.expand(3, 5, 1))
    torch.testing.assert_close(network(x, conditions, t), wide)
    assert wide.std() > 0.01


def test_subnets_have_names_and_sizes():
    """A size gives its widths; a subnet of one's own is found by its name once it is registered, and a name
    is taken once."""

    class Linear(torch.nn.Module):
        def __init__(self, in_dim, out_dim, condition_dim, widths, *, has_time):
            super().__init__()
            self.widths, self.map = widths, torch.nn.Linear(in_dim, out_dim)

        def forward(self, x, conditions, t=None):
            return self.map(x)

    register_subnet("test_linear")(Linear)
    network = FlowMatching(subnet="test_linear", widths="small")
    network.build(2, 3)
    assert isinstance(network.field, Linear)
    assert network.field.widths == (64, 64)
    assert network.sample(4, torch.zeros(2, 3), rng(0)).shape == (2, 4, 2)
    with pytest.raises(ConfigurationError, match=r"new name for a subnet, got 'residual'"):
        register_subnet("residual")(Linear)


@register("test_nest")
class Nest(DeepSet):
    """A network with networks among its arguments."""

    def __init__(self, inner=(), by_name=None):
        super().__init__(summary_dim=3)
        self.inner = inner


def test_networks_among_arguments_are_cloned_and_described():
    """clone() and JSON reach networks inside lists and dicts of arguments: the copies are like them and share
    nothing."""
    nest = Nest(inner=[DeepSet(summary_dim=7)], by_name={"a": DeepSet(summary_dim=9)})
    for copied in (nest.clone(), network_from_json(json.loads(json.dumps(nest.to_json())))):
        assert copied.config["inner"][0].summary_dim == 7
        assert copied.config["by_name"]["a"].summary_dim == 9
        assert copied.config["inner"][0] is not nest.config["inner"][0]
