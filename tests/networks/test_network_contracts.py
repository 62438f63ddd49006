"""What every registered network promises."""

import copy
import inspect
import json

import pytest
import torch

from sbi_models.errors import ConfigurationError, DataError, ModelFileError
from sbi_models.networks import (
    DeepSet,
    FlowMatching,
    InferenceNetwork,
    SummaryNetwork,
    TimeSeriesNetwork,
    network_from_json,
    network_named,
    register,
    registry,
    resolve,
)
from sbi_models.networks.layers import make_subnet, register_subnet

SMALL = {
    "flow_matching": {"widths": (16, 16), "steps": 6},
    "scoring_rules": {"widths": (16, 16), "scoring_rules": ["mean", "quantile", "mixture"]},
    "deep_set": {"summary_dim": 5, "widths": (8, 8), "head_widths": (8,)},
    "set_transformer": {"summary_dim": 5, "width": 8, "heads": 2, "head_widths": (8,)},
    "time_series_transformer": {"summary_dim": 5, "width": 8, "heads": 2, "head_widths": (8,)},
    "time_series_network": {"summary_dim": 5, "widths": (8, 8), "hidden_dim": 4, "head_widths": (8,)},
    "convolutional_network": {"summary_dim": 5, "widths": (4, 8), "head_widths": (8,)},
    "fusion_network": {
        "summary_dim": 5,
        "backbones": {"y": TimeSeriesNetwork(widths=(8,), hidden_dim=4), "x": DeepSet(summary_dim=7, widths=(8, 8), head_widths=(8,))},
        "head_widths": (8,),
    },
    "consistency_model": {"widths": (16, 16), "steps": 2},
    "diffusion_model": {"widths": (16, 16), "steps": 6},
    "coupling_flow": {"depth": 2, "widths": (16, 16)},
}
"""Arguments that make a network of each name small; a new network needs no entry, only time."""

SHAPES = {"convolutional_network": (6, 5, 2), "fusion_network": {"x": (6, 2), "y": (6, 3)}}
"""Shape of one input of the summary networks that take neither sets nor series of shape (6, 2)."""

ORDERED = {"time_series_transformer", "time_series_network", "convolutional_network", "fusion_network"}
"""Summary networks to which the order of elements means something; all others summarise sets."""

EXACT_LOSSES = {"coupling_flow", "scoring_rules"}
"""Networks whose loss draws no noise."""


def names(kind):
    return sorted(name for name, cls in registry.registered().items() if issubclass(cls, kind) and cls.__module__.startswith("sbi_models"))


every_inference = pytest.mark.parametrize("name", names(InferenceNetwork))
every_summary = pytest.mark.parametrize("name", names(SummaryNetwork))
every = pytest.mark.parametrize("name", names(InferenceNetwork) + names(SummaryNetwork))
every_set = pytest.mark.parametrize("name", sorted(set(names(SummaryNetwork)) - ORDERED))
every_order = pytest.mark.parametrize("name", sorted(ORDERED))


def rng(seed):
    return torch.Generator().manual_seed(seed)


def make(name, *, built=True, seed=0):
    """A small network; built ones have random weights everywhere, also where they start at zero."""
    network = network_named(name, SMALL.get(name))
    if built:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            network.build(2, 3) if isinstance(network, InferenceNetwork) else network.build(SHAPES.get(name, (6, 2)))
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


def each(function, first, *others):
    """The function of tensors, or of the tensors of each name in dicts."""
    if isinstance(first, dict):
        return {name: each(function, value, *(other[name] for other in others)) for name, value in first.items()}
    return function(first, *others)


def inputs(name, n=4, seed=0, dtype=torch.float32):
    """Inputs of a summary network: a tensor or a dict of tensors."""
    shape, generator = SHAPES.get(name, (6, 2)), rng(seed)
    if isinstance(shape, dict):
        return {key: torch.randn(n, *value, generator=generator, dtype=dtype) for key, value in shape.items()}
    return torch.randn(n, *shape, generator=generator, dtype=dtype)


def first(x, size):
    """The first elements of a set or series, or the upper left corner of an image."""
    return x[:, :size, :size] if x.ndim == 4 else x[:, :size]


def mask_of(x, sizes):
    """A mask of the first elements, or of the upper left corner, of that size in each row."""
    return torch.stack([_corner(x, int(size)) for size in torch.as_tensor(sizes).expand(len(x))])


def _corner(x, size):
    corner = torch.zeros(x.shape[1:-1], dtype=torch.bool)
    first(corner[None, ..., None], size)[...] = True
    return corner


def test_the_networks_of_the_page_are_registered():
    """The parametrised tests below run over something."""
    assert "flow_matching" in names(InferenceNetwork)
    assert {"deep_set", "set_transformer"} | ORDERED <= set(names(SummaryNetwork))
    assert {"consistency_model", "diffusion_model", "flow_matching"} <= set(names(InferenceNetwork))
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
    """summary_dim finite numbers a row, float32, with or without a mask; also for one row."""
    network = make(name)
    assert network.summary_dim == 5
    for n in (1, 7):
        x = inputs(name, n)
        mask = each(lambda x: mask_of(x, torch.arange(1, 8)[: len(x)]), x)
        for summaries in (network(x), network(x, mask)):
            assert summaries.shape == (n, 5)
            assert summaries.isfinite().all()
            assert summaries.dtype == torch.float32


@every_summary
def test_names_of_inputs(name):
    """Networks of several inputs say their names; the others take one tensor."""
    shape = SHAPES.get(name)
    assert make(name, built=False).input_names == (tuple(shape) if isinstance(shape, dict) else ())


@every_summary
def test_shapes_that_cannot_be_summarised_are_refused(name):
    """build refuses one axis too few or too many, and an axis without places, with what was expected, what was got, and a cure."""
    shape = SHAPES.get(name, (6, 2))
    for wrong in (lambda shape: shape[:-1], lambda shape: (*shape, 2, 1), lambda shape: (0, *shape[1:])):
        got = {**shape, "y": wrong(shape["y"])} if isinstance(shape, dict) else wrong(shape)
        listed = ", ".join(map(str, got["y"] if isinstance(got, dict) else got))
        with pytest.raises(DataError, match=rf"expected variables of shape \(n, .*features|channels\), got \(n, {listed}\)\. Add an axis"):
            make(name, built=False).build(got)


@every_summary
def test_masks_of_another_shape_are_refused(name):
    """A mask of fewer or more elements is refused."""
    network, x = make(name), inputs(name)
    for change in (lambda m: m[:, :-1], lambda m: m[..., None], lambda m: m[:1]):
        with pytest.raises(DataError, match="Expected a mask of shape"):
            network(x, each(lambda x, change=change: change(mask_of(x, 6)), x))


@every
def test_every_parameter_learns(name):
    """The loss has a gradient that is not zero for every parameter, once no layer is at zero any more."""
    network = make(name)
    if isinstance(network, InferenceNetwork):
        network.loss(*pairs(32), rng(0)).mean().backward()
    else:
        network(inputs(name, 32)).square().mean().backward()
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


@every_summary
def test_a_summary_can_be_learned(name):
    """Sixty steps of Adam bring a summary near the mean and the log spread of each input, leaving less than a third of their variance."""
    torch.manual_seed(0)
    network = network_named(name, SMALL.get(name))
    network.build(SHAPES.get(name, (6, 2)))
    generator = rng(1)
    x = each(lambda x: x * torch.randn(128, generator=generator).exp().reshape(-1, *[1] * (x.ndim - 1)) + 1.0, inputs(name, 128))
    values = [value.flatten(1) for value in (x.values() if isinstance(x, dict) else [x])]
    target = torch.cat([torch.stack([value.std(dim=1).log(), torch.asinh(value.mean(dim=1))], dim=1) for value in values], dim=1)
    target = (target - target.mean(dim=0)) / target.std(dim=0)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    for _ in range(60):
        optimizer.zero_grad()
        loss = (network(x)[:, : target.shape[1]] - target).square().mean()
        loss.backward()
        optimizer.step()
    assert loss.item() < 1 / 3


@every
def test_a_clone_has_the_same_architecture_and_fresh_weights(name):
    """clone() has the same arguments, is not built, and gets weights of its own."""
    network = make(name)
    clone = network.clone()
    assert type(clone) is type(network)
    assert clone.to_json() == {**network.to_json(), "built_with": None}
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
    assert list(network.config) == list(inspect.signature(type(network)).parameters)
    rebuilt = network_from_json(json.loads(json.dumps(network.to_json())))
    rebuilt.load_state_dict(network.state_dict())
    if isinstance(network, InferenceNetwork):
        assert torch.equal(rebuilt.loss(*pairs(), rng(0)), network.loss(*pairs(), rng(0)))
        assert torch.equal(densities(rebuilt, *pairs()), densities(network, *pairs()))
        if network.has_draws:
            assert torch.equal(rebuilt.sample(3, pairs()[1], rng(0)), network.sample(3, pairs()[1], rng(0)))
    else:
        assert torch.equal(rebuilt(inputs(name)), network(inputs(name)))


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
    assert twin.to_json() == network.to_json()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    for parameter in network.parameters():
        parameter.data += 1.0
    assert all(torch.equal(before[key], value) for key, value in twin.state_dict().items())


@every
def test_misspelt_arguments_are_refused(name):
    """A misspelt argument is refused with the nearest one there is, by class and by name."""
    argument = next(iter(SMALL.get(name, {"steps": 1})))
    with pytest.raises(ConfigurationError, match=rf"has no argument '{argument}z'. Did you mean '{argument}'\?"):
        registry._NETWORKS[name](**{f"{argument}z": 1})
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


@every_set
def test_sets_have_no_order(name):
    """Summaries of a set do not depend on the order of its elements, nor, with a mask, on where they stand."""
    network = make(name).double()
    x = torch.randn(4, 6, 2, generator=rng(0), dtype=torch.float64)
    order = torch.randperm(6, generator=rng(1))
    torch.testing.assert_close(network(x[:, order]), network(x))
    mask = torch.tensor([True, True, False, True, False, True]).expand(4, 6)
    torch.testing.assert_close(network(x[:, order], mask[:, order]), network(x, mask))
    assert not torch.any(torch.isclose(network(x), network(x.flip(0))))


@every_order
def test_order_matters_to_series_and_images(name):
    """Other orders of the same steps or pixels have other summaries."""
    network, x = make(name).double(), inputs(name, dtype=torch.float64)
    for reordered in (each(lambda x: x.flip(1), x), each(lambda x: x.roll(1, dims=1), x), each(lambda x: x[:, [0, 2, 1, 3, 5, 4]], x)):
        assert (network(reordered) - network(x)).abs().amax(dim=1).min() > 1e-3


@every_summary
@pytest.mark.parametrize("padding", [0.0, 1e6, float("nan"), float("inf")])
def test_masked_elements_are_not_there(name, padding):
    """An input padded with anything, also with large numbers or NaN, has the summary of the shorter one; a mask of True changes nothing."""
    network, x = make(name).double(), inputs(name, dtype=torch.float64)
    for size in (1, 3, 4, 6):
        padded = each(lambda x, size=size: x.where(mask_of(x, size)[..., None], padding), x)
        shorter = network(each(lambda x, size=size: first(x, size), x))
        torch.testing.assert_close(network(padded, each(lambda x, size=size: mask_of(x, size), x)), shorter)
    assert not torch.any(torch.isclose(network(each(lambda x: first(x, 4), x)), network(x)))


@every_summary
def test_what_a_mask_leaves_out_has_no_influence(name):
    """With holes in the mask, values and gradients do not depend on what the holes hold; what is left does matter."""
    network, x = make(name).double(), inputs(name, dtype=torch.float64)
    mask = each(lambda x: torch.rand(x.shape[:-1], generator=rng(3)) < 0.6, x)
    other = each(lambda x, m: x.where(m[..., None], float("nan")), x, mask)
    assert torch.equal(network(x, mask), network(other, mask))
    assert (network(each(lambda x: x + 0.1, x), mask) - network(x, mask)).abs().amax(dim=1).min() > 1e-4
    network(other, mask).sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in network.parameters())


@every_summary
def test_rows_where_nothing_is_there(name):
    """A row without any element has a finite summary that depends on nothing, finite gradients, and does not disturb its neighbours."""
    network, x = make(name).double(), inputs(name, dtype=torch.float64)
    mask = each(lambda x: mask_of(x, [0, 6, 3, 0]), x)
    summaries = network(each(lambda x, m: x.where(m[..., None], float("nan")), x, mask), mask)
    assert summaries.isfinite().all()
    torch.testing.assert_close(summaries[0], summaries[3])
    nothing = network(each(lambda x: first(x, 2), x), each(lambda x: mask_of(first(x, 2), 0), x))
    torch.testing.assert_close(nothing[0], summaries[0])
    torch.testing.assert_close(summaries[1], network(x)[1])
    assert (summaries[:1] - summaries[1:3]).abs().amax(dim=1).min() > 1e-3
    summaries.sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in network.parameters())


@every_summary
def test_summaries_do_not_depend_on_their_neighbours(name):
    """The summary of a row is the same alone, in company and in any order, with and without a mask."""
    network, x = make(name).double(), inputs(name, dtype=torch.float64)
    mask = each(lambda x: mask_of(x, [2, 6, 1, 4]), x)
    order = [2, 0, 3]
    for masks in (None, mask):
        together = network(x, masks)
        part = None if masks is None else each(lambda m: m[order], masks)
        torch.testing.assert_close(network(each(lambda x: x[order], x), part), together[order])
        alone = None if masks is None else each(lambda m: m[1:2], masks)
        torch.testing.assert_close(network(each(lambda x: x[1:2], x), alone), together[1:2])


@every_set
def test_sets_have_scale_extremes_and_size(name):
    """Sets of equal mean but another scale, maximum or number of elements have other summaries; equal elements give finite ones."""
    network = make(name).double()
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
