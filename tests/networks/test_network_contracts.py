"""What every registered network promises."""

import copy
import json

import pytest
import torch

from sbi_models.errors import ConfigurationError, ModelFileError
from sbi_models.networks import (
    DeepSet,
    FlowMatching,
    InferenceNetwork,
    SummaryNetwork,
    network_from_json,
    network_named,
    register,
    registry,
    resolve,
)
from sbi_models.networks.layers import make_subnet, register_subnet

SMALL = {
    "coupling_flow": {"depth": 2, "widths": (16, 16)},
    "flow_matching": {"widths": (16, 16), "steps": 6},
    "deep_set": {"summary_dim": 5, "widths": (8, 8), "head_widths": (8,)},
}
"""Arguments that make a network of each name small; a new network needs no entry, only time."""

EXACT_LOSSES = {"coupling_flow", "scoring_rules"}
"""Networks whose loss draws no noise."""


def names(kind):
    return sorted(name for name, cls in registry._NETWORKS.items() if issubclass(cls, kind) and cls.__module__.startswith("sbi_models"))


every_inference = pytest.mark.parametrize("name", names(InferenceNetwork))
every_summary = pytest.mark.parametrize("name", names(SummaryNetwork))
every = pytest.mark.parametrize("name", names(InferenceNetwork) + names(SummaryNetwork))


def rng(seed):
    return torch.Generator().manual_seed(seed)


def make(name, *, built=True, seed=0):
    """A small network; built ones have random weights everywhere, also where they start at zero."""
    network = network_named(name, SMALL.get(name))
    if built:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            network.build(2, 3) if isinstance(network, InferenceNetwork) else network.build((6, 2))
            for parameter in network.parameters():
                parameter.data += 0.1 * torch.randn(parameter.shape)
    return network


def densities(network, theta, conditions):
    """Log densities, of networks that have them; zeros of others, which have been seen to refuse."""
    if network.has_density:
        return network.log_prob(theta, conditions)
    with pytest.raises(ConfigurationError, match=r"has no density.*Train a"):
        network.log_prob(theta, conditions)
    return theta.new_zeros(len(theta))


def draws(network, num_samples, conditions, generator=None):
    """Draws, of networks that have them; noise of others, which have been seen to refuse."""
    if network.has_draws:
        return network.sample(num_samples, conditions, generator)
    with pytest.raises(ConfigurationError, match=r"has no draws.*estimate"):
        network.sample(num_samples, conditions, generator)
    return torch.randn(len(conditions), num_samples, 2)


def pairs(n=7, seed=1):
    return torch.randn(n, 2, generator=rng(seed)), torch.randn(n, 3, generator=rng(seed + 1))


def test_the_networks_of_the_page_are_registered():
    """The parametrised tests below run over something."""
    assert {"coupling_flow", "flow_matching"} <= set(names(InferenceNetwork))
    assert "deep_set" in names(SummaryNetwork)


@every_inference
def test_shapes_of_inference_networks(name):
    """One loss and one log density a row, num_samples draws a row, all finite and float32; also for one row."""
    network = make(name)
    for n in (1, 7):
        theta, conditions = pairs(n)
        assert network.loss(theta, conditions, rng(0)).shape == (n,)
        assert densities(network, theta, conditions).shape == (n,)
        assert draws(network, 4, conditions, rng(0)).shape == (n, 4, 2)
        for value in (network.loss(theta, conditions), densities(network, theta, conditions), draws(network, 4, conditions)):
            assert value.isfinite().all()
            assert value.dtype == torch.float32


@every_inference
@pytest.mark.parametrize(("theta_dim", "condition_dim"), [(1, 1), (3, 5), (2, 0)])
def test_inference_networks_of_any_width(name, theta_dim, condition_dim):
    """Parameters and conditions may have any width, and there may be no conditions at all."""
    network = network_named(name, SMALL.get(name))
    network.build(theta_dim, condition_dim)
    theta, conditions = torch.randn(4, theta_dim, generator=rng(0)), torch.randn(4, condition_dim, generator=rng(1))
    assert network.loss(theta, conditions, rng(2)).shape == (4,)
    if network.has_draws:
        assert network.sample(3, conditions, rng(2)).shape == (4, 3, theta_dim)
    assert densities(network, theta, conditions).shape == (4,)


@every_summary
def test_shapes_of_summary_networks(name):
    """summary_dim finite numbers a row, with or without a mask."""
    network = make(name)
    x = torch.randn(7, 6, 2, generator=rng(0))
    assert network(x).shape == (7, network.summary_dim) == (7, 5)
    mask = torch.arange(6) < torch.tensor([1, 2, 3, 4, 5, 6, 6])[:, None]
    assert network(x, mask).shape == (7, 5)
    assert network(x, mask).isfinite().all()


@every
def test_every_parameter_learns(name):
    """The loss has a gradient that is not zero for every parameter, once no layer is at zero any more."""
    network = make(name)
    if isinstance(network, InferenceNetwork):
        network.loss(*pairs(32), rng(0)).mean().backward()
    else:
        network(torch.randn(32, 6, 2, generator=rng(0))).square().mean().backward()
    idle = [key for key, parameter in network.named_parameters() if parameter.grad is None or not parameter.grad.abs().max() > 0]
    assert idle == []


@every_inference
def test_the_loss_can_be_learned(name):
    """A few steps of Adam on pairs with theta close to a function of the conditions lower the loss of fresh noise by a fifth or more."""
    torch.manual_seed(0)
    network = network_named(name, SMALL.get(name))
    network.build(2, 3)
    conditions = torch.randn(512, 3, generator=rng(1))
    theta = conditions[:, :2] + 0.1 * torch.randn(512, 2, generator=rng(2))
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    before = network.loss(theta, conditions, rng(3)).mean().item()
    for step in range(60):
        optimizer.zero_grad()
        network.loss(theta, conditions, rng(4 + step)).mean().backward()
        optimizer.step()
    assert network.loss(theta, conditions, rng(3)).mean().item() < before - 0.2 * abs(before)


@every
def test_a_clone_has_the_same_architecture_and_fresh_weights(name):
    """clone() has the same arguments, is not built, and gets weights of its own."""
    network = make(name)
    clone = network.clone()
    assert type(clone) is type(network)
    assert clone.config == network.config
    assert clone.built_with is None
    assert list(clone.parameters()) == []
    clone.build(**network.built_with)
    shapes = [{key: value.shape for key, value in net.state_dict().items()} for net in (network, clone)]
    assert shapes[0] == shapes[1]
    assert not any(torch.equal(a, b) for a, b in zip(network.parameters(), clone.parameters(), strict=True) if a.numel() > 1)


@every
def test_arguments_are_recorded(name):
    """config holds every argument, given or default, and rebuilds the network from JSON with its weights."""
    network = make(name)
    assert SMALL.get(name, {}).items() <= network.config.items()
    assert network.config.keys() >= type(network)().config.keys()
    rebuilt = network_from_json(json.loads(json.dumps(network.to_json())))
    rebuilt.load_state_dict(network.state_dict())
    if isinstance(network, InferenceNetwork):
        assert torch.equal(rebuilt.loss(*pairs(), rng(0)), network.loss(*pairs(), rng(0)))
        assert torch.equal(densities(rebuilt, *pairs()), densities(network, *pairs()))
        if network.has_draws:
            assert torch.equal(rebuilt.sample(3, pairs()[1], rng(0)), network.sample(3, pairs()[1], rng(0)))
    else:
        x = torch.randn(3, 6, 2, generator=rng(0))
        assert torch.equal(rebuilt(x), network(x))


@every
def test_building_again_changes_nothing(name):
    """A second build keeps layers and weights."""
    network = make(name)
    before = copy.deepcopy(network.state_dict())
    network.build(**network.built_with)
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())


@every
def test_deep_copies_are_independent(name):
    """A deep copy has equal weights, configuration and results, and does not follow the original."""
    network = make(name)
    twin = copy.deepcopy(network)
    assert twin.config == network.config
    assert twin.built_with == network.built_with
    before = {key: value.clone() for key, value in network.state_dict().items()}
    for parameter in network.parameters():
        parameter.data += 1.0
    assert all(torch.equal(before[key], value) for key, value in twin.state_dict().items())


@every
def test_misspelt_arguments_are_refused(name):
    """A misspelt argument is refused with the nearest one there is, by class and by name."""
    argument = next(iter(SMALL.get(name, {"steps": 1})))
    with pytest.raises(ConfigurationError, match=rf"has no argument '{argument}z'. Did you mean '{argument}'\?"):
        type(network_named(name))(**{f"{argument}z": 1})
    with pytest.raises(ConfigurationError, match=f"has no argument '{argument}z'"):
        network_named(name, {f"{argument}z": 1})


@every_inference
def test_the_generator_decides(name):
    """The same generator gives the same draws and losses whatever the global state, another one gives others."""
    network = make(name)
    theta, conditions = pairs()
    computes = [lambda g: network.loss(theta, conditions, g)]
    if network.has_draws:
        computes.append(lambda g: network.sample(5, conditions, g))
    for compute in computes:
        torch.manual_seed(0)
        first = compute(rng(3))
        torch.manual_seed(1)
        assert torch.equal(compute(rng(3)), first)
        if compute is not computes[0] or name not in EXACT_LOSSES:
            assert not torch.any(compute(rng(4)) == first)


@every_inference
def test_rows_with_generators_of_their_own_do_not_depend_on_their_neighbours(name):
    """With a generator a row, the draws of a data set are the same alone, in company, and in any order."""
    network = make(name)
    if not network.has_draws:
        return
    _, conditions = pairs()
    together = network.sample(5, conditions, [rng(10 + i) for i in range(7)])
    for i in (0, 3, 6):
        torch.testing.assert_close(network.sample(5, conditions[i : i + 1], [rng(10 + i)])[0], together[i], rtol=1e-4, atol=1e-5)
    order = [4, 2, 6]
    torch.testing.assert_close(network.sample(5, conditions[order], [rng(10 + i) for i in order]), together[order], rtol=1e-4, atol=1e-5)
    assert not torch.any(together[0] == together[1])


@every_inference
def test_conditions_matter(name):
    """Other conditions give other draws and densities of the same noise and parameters."""
    network = make(name)
    theta, conditions = pairs()
    assert not torch.any(network.loss(theta, conditions, rng(0)) == network.loss(theta, conditions + 1, rng(0)))
    if network.has_draws:
        assert not torch.any(network.sample(5, conditions, rng(0)) == network.sample(5, conditions + 1, rng(0)))
    if network.has_density:
        assert not torch.any(network.log_prob(theta, conditions) == network.log_prob(theta, conditions + 1))


@every_summary
def test_sets_have_no_order(name):
    """Summaries of a set do not depend on the order of its elements, nor, with a mask, on where they stand."""
    network = make(name).double()
    x = torch.randn(4, 6, 2, generator=rng(0), dtype=torch.float64)
    order = torch.randperm(6, generator=rng(1))
    torch.testing.assert_close(network(x[:, order]), network(x))
    mask = torch.tensor([True, True, False, True, False, True]).expand(4, 6)
    torch.testing.assert_close(network(x[:, order], mask[:, order]), network(x, mask))
    assert not torch.any(torch.isclose(network(x), network(x.flip(0))))


@every_summary
def test_masked_elements_are_not_there(name):
    """A set padded with anything, large numbers too, has the summary of the shorter set; a mask of True changes nothing."""
    network = make(name).double()
    x = torch.randn(4, 6, 2, generator=rng(0), dtype=torch.float64)
    for size in (1, 4, 6):
        padded = x.clone()
        padded[:, size:] = 1e6
        torch.testing.assert_close(network(padded, (torch.arange(6) < size).expand(4, 6)), network(x[:, :size]))
    assert not torch.any(torch.isclose(network(x[:, :4]), network(x)))


def test_deep_sets_see_scale_extremes_and_size():
    """Sets of equal mean but another scale, maximum or number of elements have other summaries; equal elements give finite ones."""
    network = make("deep_set").double()
    sets = torch.tensor([[-1.0, 1.0, -1.0, 1.0], [-2.0, 2.0, -2.0, 2.0], [-3.0, 1.0, 1.0, 1.0]], dtype=torch.float64)
    x = sets[..., None].expand(3, 4, 2)
    summaries = network(x)
    assert torch.cdist(summaries, summaries)[torch.triu_indices(3, 3, 1).unbind()].min() > 1e-3
    assert (network(x.repeat(1, 2, 1)) - summaries).abs().max() > 1e-3
    assert network(torch.full((1, 4, 2), 3.0, dtype=torch.float64)).isfinite().all()


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
    with pytest.raises(ModelFileError, match=r"unknown network 'deep_sett'. Did you mean 'deep_set'.*Register your own"):
        network_from_json({"name": "deep_sett", "config": {}, "built_with": None})


def test_a_name_is_registered_once():
    """Another class under a name that is taken is refused; the same class may come again."""
    with pytest.raises(ConfigurationError, match=r"'deep_set' is registered already: DeepSet"):
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
        ({"steps": 0}, "at least 1"),
        ({"noise_per_pair": 0}, "at least 1"),
        ({"grading": 0.5}, "at least 1"),
    ],
)
def test_flow_matching_refuses_sizes_that_cannot_be(arguments, message):
    """Sizes below one and unequal widths are refused by the constructor, not by the first batch."""
    with pytest.raises(ConfigurationError, match=message):
        FlowMatching(**arguments)


@pytest.mark.parametrize("subnet", ["residual", "mlp"])
@pytest.mark.parametrize("condition_dim", [0, 3])
@pytest.mark.parametrize("has_time", [True, False])
def test_subnets_broadcast_and_start_at_zero(subnet, condition_dim, has_time):
    """Conditions and times of one row serve many rows of x, with the same result as repeated ones; the output starts at zero."""
    network = make_subnet(subnet, 2, 4, condition_dim, (16, 16), has_time=has_time).double()
    x, conditions = torch.randn(3, 5, 2, dtype=torch.float64), torch.randn(3, 1, condition_dim, dtype=torch.float64)
    t = torch.rand(1, 5, 1, dtype=torch.float64) if has_time else None
    assert torch.equal(network(x, conditions, t), torch.zeros(3, 5, 4, dtype=torch.float64))
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    wide = network(x, conditions.expand(3, 5, condition_dim), None if t is None else t.expand(3, 5, 1))
    torch.testing.assert_close(network(x, conditions, t), wide)
    assert wide.std() > 0.01


def test_subnets_have_names_and_sizes():
    """A size gives its widths; a subnet of one's own is found by its name once it is registered, and a name is taken once."""

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
    with pytest.raises(ConfigurationError, match="'residual' is registered already"):
        register_subnet("residual")(Linear)


@register("test_nest")
class Nest(DeepSet):
    """A network with networks among its arguments."""

    def __init__(self, inner=(), by_name=None):
        super().__init__(summary_dim=3)
        self.inner = inner


def test_networks_among_arguments_are_cloned_and_described():
    """clone() and JSON reach networks inside lists and dicts of arguments: the copies are like them and share nothing."""
    nest = Nest(inner=[DeepSet(summary_dim=7)], by_name={"a": DeepSet(summary_dim=9)})
    for copied in (nest.clone(), network_from_json(json.loads(json.dumps(nest.to_json())))):
        assert copied.config["inner"][0].summary_dim == 7
        assert copied.config["by_name"]["a"].summary_dim == 9
        assert copied.config["inner"][0] is not nest.config["inner"][0]
