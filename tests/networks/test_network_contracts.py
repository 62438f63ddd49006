"""What every registered network promises, and every inference network."""

import copy
import inspect
import json

import pytest
import torch
from network_contract import (
    ORDERED,
    SMALL,
    densities,
    draws,
    draws_noise,
    every,
    every_inference,
    inputs,
    make,
    names,
    pairs,
    rng,
    small,
)

from sbi_models.errors import ConfigurationError
from sbi_models.networks import (
    FlowMatching,
    InferenceNetwork,
    SummaryNetwork,
    network_from_json,
    network_named,
    registry,
)


def test_the_networks_of_the_page_are_registered():
    """The parametrised tests below run over something."""
    assert "flow_matching" in names(InferenceNetwork)
    assert {"deep_set", "set_transformer"} | ORDERED <= set(names(SummaryNetwork))
    assert {"consistency_model", "diffusion_model", "flow_matching"} <= set(names(InferenceNetwork))
    noisy = {name for name in names(InferenceNetwork) if draws_noise(make(name))}
    assert {"consistency_model", "diffusion_model", "flow_matching"} <= noisy
    assert noisy.isdisjoint({"autoregressive_mixture", "coupling_flow", "scoring_rules"})


@every_inference
def test_shapes_of_inference_networks(name):
    """One loss and one log density a row, num_samples draws a row, all finite and float32; also for one
    row."""
    network = make(name)
    for n in (1, 7):
        theta, conditions = pairs(n)
        assert network.loss(theta, conditions, rng(0)).shape == (n,)
        assert densities(network, theta, conditions).shape == (n,)
        assert draws(network, 4, conditions, rng(0)).shape == (n, 4, 2)
        for value in (
            network.loss(theta, conditions),
            densities(network, theta, conditions),
            draws(network, 4, conditions),
        ):
            assert value.isfinite().all()
            assert value.dtype == torch.float32


@every_inference
@pytest.mark.parametrize(("theta_dim", "condition_dim"), [(1, 1), (3, 5), (2, 0)])
def test_inference_networks_of_any_width(name, theta_dim, condition_dim):
    """Parameters and conditions may have any width, and there may be no conditions at all."""
    network = small(name)
    network.build(theta_dim, condition_dim)
    theta, conditions = (
        torch.randn(4, theta_dim, generator=rng(0)),
        torch.randn(4, condition_dim, generator=rng(1)),
    )
    assert network.loss(theta, conditions, rng(2)).shape == (4,)
    if network.has_draws:
        assert network.sample(3, conditions, rng(2)).shape == (4, 3, theta_dim)
    assert densities(network, theta, conditions).shape == (4,)


@every
def test_every_parameter_learns(name):
    """The loss has a gradient that is not zero for every parameter, once no layer is at zero any more."""
    network = make(name)
    if isinstance(network, InferenceNetwork):
        network.loss(*pairs(32), rng(0)).mean().backward()
    else:
        network(inputs(name, 32)).square().mean().backward()
    idle = [
        key
        for key, parameter in network.named_parameters()
        if parameter.grad is None or not parameter.grad.abs().max() > 0
    ]
    assert idle == []


@every_inference
def test_the_loss_can_be_learned(name):
    """A few steps of Adam on pairs with theta close to a function of the conditions lower the loss of fresh
    noise by a fifth or more."""
    torch.manual_seed(0)
    network = small(name)
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
    assert clone.to_json() == {**network.to_json(), "built_with": None}
    assert list(clone.parameters()) == []
    clone.build(**network.built_with)
    shapes = [{key: value.shape for key, value in net.state_dict().items()} for net in (network, clone)]
    assert shapes[0] == shapes[1]
    assert not any(
        torch.equal(a, b)
        for a, b in zip(network.parameters(), clone.parameters(), strict=True)
        if a.numel() > 1
    )


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
    """A misspelt argument is refused with the nearest one there is, or with "none", by class and by name."""
    cls = registry.NETWORKS[name]
    argument = next(iter(SMALL.get(name, inspect.signature(cls).parameters)), None)
    nearest = r"Known: none" if argument is None else rf"Did you mean '{argument}'\?"
    with pytest.raises(ConfigurationError, match=rf"has no argument '{argument}z'. {nearest}"):
        cls(**{f"{argument}z": 1})
    with pytest.raises(ConfigurationError, match=f"has no argument '{argument}z'"):
        network_named(name, {f"{argument}z": 1})


@every_inference
def test_the_generator_decides(name):
    """The same generator gives the same draws and losses whatever the global state, another one gives
    others."""
    network = make(name)
    theta, conditions = pairs()
    computes = [(lambda g: network.loss(theta, conditions, g), draws_noise(network))]
    if network.has_draws:
        computes.append((lambda g: network.sample(5, conditions, g), True))
    for compute, is_random in computes:
        torch.manual_seed(0)
        first = compute(rng(3))
        torch.manual_seed(1)
        assert torch.equal(compute(rng(3)), first)
        equal = compute(rng(4)) == first
        assert equal.any() == equal.all()
        assert is_random is None or bool(equal.any()) != is_random


@every_inference
def test_the_loss_is_a_function_of_what_is_drawn(name):
    """loss is loss_given of the numbers that draw has drawn from the same generator, a row for each pair;
    loss_given draws nothing."""
    network = make(name)
    if draws_noise(network) is None:
        return
    theta, conditions = pairs()
    drawn = network.draw(theta, rng(3))
    assert all(len(numbers) == 7 for numbers in drawn)
    expected = network.loss(theta, conditions, rng(3))
    for seed in range(2):
        torch.manual_seed(seed)
        assert torch.equal(network.loss_given(theta, conditions, drawn), expected)


def test_a_network_without_a_loss_says_what_to_write():
    """A network that implements neither loss nor loss_given is an error that names it, at the first loss."""

    class Unfinished(FlowMatching):
        loss_given = InferenceNetwork.loss_given

    network = Unfinished(widths=(8,))
    network.build(2, 3)
    with pytest.raises(NotImplementedError, match=r"Unfinished has no training loss.*Implement loss_given"):
        network.loss(*pairs())


@every_inference
def test_rows_with_generators_of_their_own_do_not_depend_on_their_neighbours(name):
    """With a generator a row, the draws of a data set are the same alone, in company, and in any order."""
    network = make(name)
    if not network.has_draws:
        return
    _, conditions = pairs()
    together = network.sample(5, conditions, [rng(10 + i) for i in range(7)])
    for i in (0, 3, 6):
        torch.testing.assert_close(
            network.sample(5, conditions[i : i + 1], [rng(10 + i)])[0], together[i], rtol=1e-4, atol=1e-5
        )
    order = [4, 2, 6]
    torch.testing.assert_close(
        network.sample(5, conditions[order], [rng(10 + i) for i in order]),
        together[order],
        rtol=1e-4,
        atol=1e-5,
    )
    assert not torch.any(together[0] == together[1])


@every_inference
def test_conditions_matter(name):
    """Other conditions give other draws and densities of the same noise and parameters."""
    network = make(name)
    theta, conditions = pairs()
    assert not torch.any(
        network.loss(theta, conditions, rng(0)) == network.loss(theta, conditions + 1, rng(0))
    )
    if network.has_draws:
        assert not torch.any(
            network.sample(5, conditions, rng(0)) == network.sample(5, conditions + 1, rng(0))
        )
    if network.has_density:
        assert not torch.any(network.log_prob(theta, conditions) == network.log_prob(theta, conditions + 1))
