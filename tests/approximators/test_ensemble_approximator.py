"""An ensemble of members whose posteriors are known: a mixture, exactly."""

import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.special import logsumexp
from scipy.stats import ks_2samp, norm

from sbi_models.adapters import Adapter
from sbi_models.approximators import ContinuousApproximator, EnsembleApproximator, load_approximator
from sbi_models.errors import ConfigurationError, NotFittedError
from sbi_models.networks import CouplingFlow, FlowMatching, InferenceNetwork
from sbi_models.networks.noise import normal
from sbi_models.networks.registry import register

ROLES = {"inference_variables": ["theta"], "inference_conditions": ["x"]}


@register("test_known_normal")
class KnownNormal(InferenceNetwork):
    """N(mean + c, sd^2) for the sum c of the conditions, with no weights that matter."""

    def __init__(self, mean=0.0, sd=1.0):
        super().__init__()
        self.mean, self.sd = mean, sd

    def _build(self, theta_dim, condition_dim):
        self.theta_dim = theta_dim
        self.shift = torch.nn.Parameter(torch.randn(()))

    def loss(self, theta, conditions, generator=None):
        return -self.log_prob(theta, conditions) + self.shift**2

    def sample(self, num_samples, conditions, generator=None):
        noise = normal((len(conditions), num_samples, self.theta_dim), generator, conditions)
        return self.mean + conditions.sum(dim=1)[:, None, None] + self.sd * noise

    def log_prob(self, theta, conditions):
        z = (theta - self.mean - conditions.sum(dim=1, keepdim=True)) / self.sd
        return (-(z**2) / 2 - np.log(self.sd * np.sqrt(2 * np.pi))).sum(dim=1)


@register("test_without_density")
class WithoutDensity(KnownNormal):
    """As above, but it does not tell its density."""

    has_density = False

    def log_prob(self, theta, conditions):
        raise AssertionError("asked for a density")


def member(network, adapter=None, **arguments):
    return ContinuousApproximator(
        adapter=adapter or Adapter(), roles=ROLES, inference_network=network, standardize=(), **arguments
    )


def data(n=30, seed=0):
    rng = np.random.default_rng(seed)
    return {"theta": 0.5 + np.abs(rng.normal(size=(n, 1))), "x": rng.normal(size=(n, 1))}


def ensemble(*, built=True, **arguments):
    """N(c, 1) and N(c + 4, 1/2)."""
    made = EnsembleApproximator(
        {"wide": member(KnownNormal()), "narrow": member(KnownNormal(4.0, 0.5))}, **arguments
    )
    if built:
        made.build(data(), seed=0)
    return made.eval()


# --- the mixture


@pytest.mark.parametrize("weights", [None, {"wide": 0.6, "narrow": 0.4}, {"narrow": 7}])
def test_the_density_is_the_weighted_log_sum_exp(weights):
    """log_prob is log sum_k w_k p_k of the exact densities, Jacobian of a log adapter included, to 1e-5."""
    adapter = Adapter().log("theta")
    made = EnsembleApproximator(
        {"wide": member(KnownNormal(), adapter), "narrow": member(KnownNormal(4.0, 0.5), adapter)}
    )
    made.build(data(), seed=0)
    rows = data(40, seed=1)
    theta, x = rows["theta"][:, 0], rows["x"][:, 0]
    exact = (
        np.stack([norm.logpdf(np.log(theta), x, 1.0), norm.logpdf(np.log(theta), x + 4, 0.5)], axis=1)
        - np.log(theta)[:, None]
    )
    w = (
        np.array([0.5, 0.5])
        if weights is None
        else np.array([weights.get("wide", 0), weights["narrow"]]) / sum(weights.values())
    )
    np.testing.assert_allclose(
        made.log_prob(rows, member_weights=weights), logsumexp(exact, b=w, axis=1), atol=1e-5
    )
    each = made.log_prob(rows, merge_members=False)
    np.testing.assert_allclose(np.stack([each["wide"], each["narrow"]], axis=1), exact, atol=1e-5)
    outside = made.log_prob({"theta": -rows["theta"], "x": rows["x"]}, member_weights=weights)
    assert (outside == -np.inf).all()


def test_merged_draws_have_exact_shares():
    """With members that do not overlap, 0.6 and 0.4 of 500 draws are 300 and 200 for every data set."""
    far = EnsembleApproximator({"low": member(KnownNormal(-100.0)), "high": member(KnownNormal(100.0))})
    far.build(data(), seed=0)
    draws = far.sample(
        num_samples=500, conditions=data(20), seed=1, member_weights={"low": 0.6, "high": 0.4}
    )["theta"]
    assert draws.shape == (20, 500, 1)
    assert ((draws > 0).sum(axis=1) == 200).all()
    odd = far.sample(num_samples=5, conditions=data(20), seed=1)["theta"]
    assert ((odd > 0).sum(axis=(1, 2)).reshape(10, 2).sum(axis=1) == 5).all()  # 2 and 3 in turn
    first_half = (draws[:, :250] > 0).mean()
    assert first_half == pytest.approx(0.4, abs=0.02)  # shuffled


def test_merged_draws_are_those_of_the_mixture():
    """Draws of 0.6 N(c, 1) + 0.4 N(c + 4, 1/2) and draws made by hand pass a two-sample test; those of other
    weights do not."""
    conditions = {"x": np.zeros((1, 1))}
    draws = (
        ensemble()
        .sample(num_samples=20_000, conditions=conditions, seed=1, member_weights={"wide": 3, "narrow": 2})[
            "theta"
        ]
        .ravel()
    )
    rng = np.random.default_rng(2)
    by_hand = np.where(rng.random(20_000) < 0.6, rng.normal(size=20_000), 4 + 0.5 * rng.normal(size=20_000))
    assert ks_2samp(draws, by_hand).pvalue > 0.01
    other = ensemble().sample(num_samples=20_000, conditions=conditions, seed=1)["theta"].ravel()
    assert ks_2samp(other, by_hand).pvalue < 1e-6


def test_each_member_can_be_asked():
    """merge_members=False gives num_samples draws of each member, independent ones, the same for the same
    seed."""
    made = ensemble()
    draws = made.sample(num_samples=4000, conditions=data(2), seed=1, merge_members=False)
    assert {name: list(values) for name, values in draws.items()} == {"wide": ["theta"], "narrow": ["theta"]}
    assert all(values["theta"].shape == (2, 4000, 1) for values in draws.values())
    again = made.sample(num_samples=4000, conditions=data(2), seed=1, merge_members=False)
    np.testing.assert_array_equal(draws["narrow"]["theta"], again["narrow"]["theta"])
    correlation = np.corrcoef(draws["wide"]["theta"][0, :, 0], draws["narrow"]["theta"][0, :, 0])[0, 1]
    assert abs(correlation) < 4 / np.sqrt(4000)
    assert list(made.sample(num_samples=3, conditions=data(2), seed=1, split=True)) == ["theta_0"]


def test_draws_of_a_data_set_do_not_depend_on_batches_or_later_rows():
    """Merged draws are the same one data set at a time, for the first rows alone, and in one call."""
    made, rows = ensemble(), data(7)
    whole = made.sample(num_samples=9, conditions=rows, seed=1)["theta"]
    np.testing.assert_allclose(
        made.sample(num_samples=9, conditions=rows, seed=1, batch_size=1)["theta"], whole, rtol=1e-6
    )
    first = {name: value[:3] for name, value in rows.items()}
    np.testing.assert_allclose(
        made.sample(num_samples=9, conditions=first, seed=1)["theta"], whole[:3], rtol=1e-6
    )


# --- weights


def test_own_weights_are_the_default():
    """Weights that are set or learned govern sample and log_prob until a call gives others; None makes them
    equal again."""
    made, rows = ensemble(), data(10)
    equal = made.log_prob(rows)
    made.weights = {"narrow": 2.0}
    assert made.weights == {"wide": 0.0, "narrow": 1.0}
    np.testing.assert_array_equal(made.log_prob(rows), made.log_prob(rows, merge_members=False)["narrow"])
    assert made.sample(num_samples=500, conditions={"x": np.zeros((1, 1))}, seed=1)["theta"].min() > 1.5
    np.testing.assert_array_equal(made.log_prob(rows, member_weights={"wide": 1, "narrow": 1}), equal)
    made.weights = None
    np.testing.assert_array_equal(made.log_prob(rows), equal)


def test_stacking_learns_the_weights_of_the_data():
    """Data of which a quarter comes from `narrow` give it a weight of 1/4, which is kept."""
    made, rng = ensemble(), np.random.default_rng(3)
    x = rng.normal(size=(8000, 1))
    narrow = np.arange(8000)[:, None] % 4 == 0
    theta = x + np.where(narrow, 4 + 0.5 * rng.normal(size=x.shape), rng.normal(size=x.shape))
    learned = made.stack({"theta": theta, "x": x})
    assert learned == made.weights
    assert learned["narrow"] == pytest.approx(0.25, abs=0.02)
    assert made.stack({"theta": theta, "x": x}, shrinkage=0)["narrow"] == pytest.approx(0.25, abs=0.01)
    assert made.stack({"theta": theta, "x": x}, shrinkage=float("inf")) == {"wide": 0.5, "narrow": 0.5}
    for bad in (-1, float("nan"), "1"):
        with pytest.raises(ConfigurationError, match="shrinkage as a number of simulations"):
            made.stack({"theta": theta, "x": x}, shrinkage=bad)


def test_weights_and_merging_exclude_each_other():
    """Weights of members that are not merged are an error, and so are bad ones in a call and as the
    ensemble's own."""
    made = ensemble()
    for call in (
        lambda **a: made.sample(num_samples=2, conditions=data(1), **a),
        lambda **a: made.log_prob(data(1), **a),
    ):
        with pytest.raises(ConfigurationError, match="expected merge_members=True with them"):
            call(merge_members=False, member_weights={"wide": 1})
        with pytest.raises(ConfigurationError, match="no member 'wid' to give a weight"):
            call(member_weights={"wid": 1})
    with pytest.raises(ConfigurationError, match="as a dict of members"):
        made.weights = [0.5, 0.5]
    assert made.weights is None


def test_members_without_a_density_are_said_so():
    """A mixture with one has draws; its density, and learning weights, are errors that name the member,
    unless its weight is 0."""
    made = EnsembleApproximator({"a": member(KnownNormal()), "b": member(WithoutDensity())})
    made.build(data(), seed=0)
    assert made.sample(num_samples=4, conditions=data(2), seed=0)["theta"].shape == (2, 4, 1)
    for refused in (lambda: made.log_prob(data(3)), lambda: made.stack(data(3))):
        with pytest.raises(ConfigurationError, match=r"got none for 'b' \(WithoutDensity\)"):
            refused()
    np.testing.assert_array_equal(
        made.log_prob(data(3), member_weights={"a": 1}), made.members["a"].log_prob(data(3))
    )
    assert list(made.log_prob(data(3), merge_members=False)) == ["a"]


# --- members


def test_members_share_moments_and_nothing_else():
    """Members of one architecture have the same moments, and differ in every other tensor; none is the same
    memory."""
    parts = {"roles": ROLES, "inference_network": FlowMatching(widths=(8, 8))}
    made = EnsembleApproximator(
        {
            name: ContinuousApproximator(
                adapter=Adapter(), **(parts | {"inference_network": parts["inference_network"].clone()})
            )
            for name in "ab"
        }
    )
    made.build(data(), seed=0)
    a, b = (made.members[name].state_dict() for name in "ab")
    assert a.keys() == b.keys()
    for name in a:
        assert a[name].data_ptr() != b[name].data_ptr()
        by_design = (
            name.startswith("standardizer") or a[name].unique().numel() == 1
        )  # such as zeros of last layers, ones of norms
        assert torch.equal(a[name], b[name]) == by_design, name


def test_a_member_does_not_depend_on_the_others():
    """The initial weights of a member are a function of the seed and its name."""
    pairs = [("a", "b"), ("c", "a")]
    weights = []
    for names in pairs:
        made = EnsembleApproximator({name: member(FlowMatching(widths=(8, 8))) for name in names})
        made.build(data(), seed=3)
        weights.append(made.members["a"].state_dict())
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({}, "at least two members"),
        ({"a": member(KnownNormal())}, "at least two members"),
        ([member(KnownNormal()), member(KnownNormal())], "at least two members"),
        ({"a": member(KnownNormal()), "": member(KnownNormal())}, "names of members as text"),
        ({"a": member(KnownNormal()), "a/b": member(KnownNormal())}, "names of members as text"),
        ({"a": member(KnownNormal()), 1: member(KnownNormal())}, "names of members as text"),
        (
            {"a": member(KnownNormal()), "b": KnownNormal()},
            "Expected a ContinuousApproximator for member 'b', got KnownNormal",
        ),
        (
            {"a": member(KnownNormal()), "b": member(KnownNormal(), Adapter().log("theta"))},
            "the same adapter in every member",
        ),
    ],
)
def test_members_that_do_not_fit_are_refused(members, message):
    """Fewer than two members, bad names, and members that differ in more than their networks are errors."""
    with pytest.raises(ConfigurationError, match=message):
        EnsembleApproximator(members)


def test_shared_networks_are_refused():
    """One network in two members is an error with a cure."""
    network = KnownNormal()
    with pytest.raises(ConfigurationError, match=r"share one. Pass network.clone\(\)"):
        EnsembleApproximator({"a": member(network), "b": member(network)})


def test_trained_approximators_can_be_joined():
    """Approximators that were built from different data make an ensemble that samples; training it is
    refused."""
    members = {}
    for k, name in enumerate("ab"):
        members[name] = ContinuousApproximator(
            adapter=Adapter(), roles=ROLES, inference_network=CouplingFlow()
        )
        members[name].build(data(seed=k), seed=k)
    made = EnsembleApproximator(members).eval()
    expected = logsumexp([member.log_prob(data(5)) for member in members.values()], b=0.5, axis=0)
    np.testing.assert_allclose(made.log_prob(data(5)), expected, atol=1e-5)
    with pytest.raises(ConfigurationError, match="can sample, but not train"):
        made.build(data(), seed=0)


def test_what_an_ensemble_cannot_do_is_said():
    """Before training there are no draws; estimates are those of members."""
    with pytest.raises(NotFittedError):
        ensemble(built=False).sample(num_samples=2, conditions=data(1))
    with pytest.raises(ConfigurationError, match=r"Ask a member: approximator.members\['wide'\].estimate"):
        ensemble().estimate(conditions=data(1))


# --- disagreement


def test_cross_densities_are_those_of_the_members():
    """Draws of member k have the log densities that every member gives them."""
    cross = ensemble().cross_log_prob(conditions=data(3), num_samples=2000, seed=1)
    assert cross.shape == (3, 2, 2000, 2)
    # at draws of N(m, s): E log N(m, s) = -log(s sqrt(2 pi e)); at draws of N(0, 1): E log N(4, 1/2) has E (z
    # - 4)^2 / 0.5 = 17 / 0.5
    expected = [
        [-0.5 * np.log(2 * np.pi * np.e), -np.log(0.5 * np.sqrt(2 * np.pi)) - 17 / 0.5],
        [-0.5 * np.log(2 * np.pi) - 16.25 / 2, -np.log(0.5 * np.sqrt(2 * np.pi * np.e))],
    ]
    np.testing.assert_allclose(cross.mean(axis=(0, 2)), expected, rtol=0.02)


# --- files


@pytest.mark.nightly
def test_a_loaded_ensemble_is_the_saved_one_in_a_new_process(tmp_path):
    """One file gives another process the same draws, densities and weights to the bit, for members of two
    kinds."""
    made = EnsembleApproximator(
        {name: ContinuousApproximator(adapter=Adapter(), roles=ROLES, inference_network=net) for name, net in
         {"flow": FlowMatching(widths=(8, 8), steps=4), "a.b": CouplingFlow()}.items()},
        info={"unit": "m"},
    ).eval()  # fmt: skip
    made.build(data(), seed=0)
    for parameter in made.parameters():
        parameter.data += 0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))
    made.stack(data(50, seed=4))
    path = made.save(tmp_path / "ensemble.keras")
    script = f"""
        import numpy as np, sbi_models
        loaded = sbi_models.load({str(path)!r})
        rows = dict(np.load({str(tmp_path / "rows.npz")!r}))
        draws = loaded.sample(num_samples=50, conditions=rows, seed=3)["theta"]
        np.savez({str(tmp_path / "got.npz")!r}, draws=draws,
                 log_prob=loaded.log_prob(rows), weights=list(loaded.weights.values()))
        assert loaded.info == {{"unit": "m"}} and list(loaded.members) == ["flow", "a.b"]
        assert not loaded.training
    """
    np.savez(tmp_path / "rows.npz", **data(6, seed=2))
    root = str(Path(__file__).parents[2])
    subprocess.run(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(script)], check=True, timeout=120, cwd=root
    )
    got = np.load(tmp_path / "got.npz")
    np.testing.assert_array_equal(
        got["draws"], made.sample(num_samples=50, conditions=data(6, seed=2), seed=3)["theta"]
    )
    np.testing.assert_array_equal(got["log_prob"], made.log_prob(data(6, seed=2)))
    np.testing.assert_array_equal(got["weights"], list(made.weights.values()))
    again = load_approximator(path)
    assert again.save(tmp_path / "again").read_bytes() == path.read_bytes()
    assert again.architecture == made.architecture
