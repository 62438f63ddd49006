"""EnsembleWorkflow: its members, their training, and their mixture."""

import numpy as np
import pytest
import torch
from linear_gaussian import SD, SIMULATOR, ensemble, exact_log_prob, exact_mean

import sbi_models as bf
from sbi_models.approximators import EnsembleApproximator, load_approximator
from sbi_models.errors import ConfigurationError, TrainingError
from sbi_models.networks import (
    ConsistencyModel,
    CouplingFlow,
    DeepSet,
    DiffusionModel,
    FlowMatching,
)
from sbi_models.networks.registry import register
from sbi_models.training.module import TrainingModule

DATA = SIMULATOR.sample(150, seed=1)
VALIDATION = SIMULATOR.sample(40, seed=2)
FLOW = FlowMatching(widths=(16, 16), steps=4)


class Stop(Exception):
    """Raised by a listener to end a training."""


def fit(made, *, epochs=4, data_reuse=1.0, validation_data=VALIDATION, **options):
    return made.fit_offline(
        DATA, epochs=epochs, batch_size=32, data_reuse=data_reuse, validation_data=validation_data, **options
    )


def weights(made):
    return {name: value.clone() for name, value in getattr(made, "approximator", made).state_dict().items()}


def equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


# --- members


def test_trained_members_differ_in_every_weight():
    """In size mode, with a summary network given once, no trained tensor of two members is equal, at any
    reuse."""
    sets = {"theta": DATA["theta"], "x": DATA["x"][:, :, None]}
    for reuse in (0.0, 1.0):
        made = ensemble(
            inference_conditions=None,
            summary_variables=["x"],
            summary_networks=DeepSet(summary_dim=3, widths=(8,), head_widths=(8,)),
            ensemble_size=3,
        )
        made.fit_offline(sets, epochs=3, batch_size=16, data_reuse=reuse)
        assert list(made.approximator.members) == ["0", "1", "2"]
        parts = [dict(member.named_parameters()) for member in made.approximator.members.values()]
        assert any(name.startswith("summary_network") for name in parts[0])
        for a in range(3):
            for b in range(a):
                assert all((parts[a][name] != parts[b][name]).any() for name in parts[a])


def test_members_of_different_kinds():
    """Flow matching, diffusion and coupling flows train in one ensemble; densities, draws and diagnostics are
    those of the mixture."""
    networks = {
        "flow": FLOW,
        "diffusion": DiffusionModel(widths=(16, 16)),
        "coupling": CouplingFlow,
        "by name": "coupling_flow",
    }
    made = ensemble(inference_networks=networks, ensemble_size=None)
    history = fit(made, epochs=2)
    assert {"flow/loss", "diffusion/val_loss", "coupling/loss", "by name/loss", "loss", "val_loss"} <= set(
        history.history
    )
    assert made.log_prob(VALIDATION).shape == (40,)
    assert made.sample(num_samples=7, conditions=VALIDATION)["theta"].shape == (40, 7, 2)
    assert made.compute_default_diagnostics(VALIDATION, num_samples=20, seed=1).shape == (4, 2)
    assert "losses" in made.plot_default_diagnostics(VALIDATION, num_samples=20, seed=1)


def test_a_member_trains_as_it_would_with_others():
    """With common data, weights and losses of a member are the same to the bit whoever trains beside it, and
    clipping is its own."""
    steep = {
        "optimizer": torch.optim.SGD,
        "initial_learning_rate": 0.5,
    }  # unlike Adam, it feels a clipped norm
    for settings in ({"ema": 0.9}, steep):
        one = ensemble(inference_networks={"a": FLOW, "b": CouplingFlow()}, ensemble_size=None, **settings)
        other = ensemble(inference_networks={"c": FLOW, "a": FLOW, "d": FLOW}, ensemble_size=None, **settings)
        first, second = fit(one, epochs=2).history, fit(other, epochs=2).history
        assert first["a/loss"] == second["a/loss"]
        assert first["a/val_loss"] == second["a/val_loss"]
        assert equal(*(made.approximator.members["a"].state_dict() for made in (one, other)))
        assert second["c/loss"] != second["a/loss"] != second["d/loss"]


# Seconds: two members take the 400 steps that lead to a tenth of a posterior sd.
def test_the_mixture_learns_the_posterior():
    """Two members on a few thousand simulations have, together, the mean, spread and density of the exact
    posterior."""
    made = ensemble(inference_networks=FlowMatching(widths=(32, 32), steps=8), ensemble_size=2)
    made.fit_online(epochs=4, num_batches_per_epoch=100, batch_size=64, data_reuse=0.5)
    test = SIMULATOR.sample(100, seed=8)
    draws = made.sample(num_samples=400, conditions=test, seed=1)["theta"]
    assert np.sqrt(np.mean(((draws.mean(axis=1) - exact_mean(test["x"])) / SD) ** 2)) < 0.1
    assert draws.std(axis=1).mean() / SD == pytest.approx(1.0, abs=0.1)
    assert made.log_prob(test).mean() == pytest.approx(exact_log_prob(test).mean(), abs=0.05)


# --- training


def test_the_history_has_the_losses_of_members():
    """Each member has a loss and a validation loss an epoch; `loss` and `val_loss` are their means; best
    epochs are each member's own."""
    history = fit(ensemble(ensemble_size=3), data_reuse=0.5)
    h = history.history
    assert sorted(h) == sorted(
        ["loss", "val_loss", *(f"{k}/{kind}" for k in range(3) for kind in ("loss", "val_loss"))]
    )
    for kind in ("loss", "val_loss"):
        np.testing.assert_allclose(h[kind], np.mean([h[f"{k}/{kind}"] for k in range(3)], axis=0), rtol=1e-12)
    assert history.best_epochs == {str(k): int(np.argmin(h[f"{k}/val_loss"])) + 1 for k in range(3)}


SCRIPT = {
    "0": [5.0, 4.0, 6.0, 7.0, 8.0, 9.0],
    "1": [5.0, 4.5, 4.0, 3.5, 3.6, 3.7],
    "2": [1.0, 2.0, 3.0, 3.0, 3.0, 3.0],
}


def scripted(monkeypatch):
    """Give members the validation losses of SCRIPT; record the weights that each has at the end of each
    epoch."""
    epochs, plain = [], TrainingModule._means

    def means(self):
        own = plain(self)
        for name in SCRIPT:
            if f"{name}/val_loss" in own:
                own[f"{name}/val_loss"] = SCRIPT[name][self.current_epoch]
        return own

    monkeypatch.setattr(TrainingModule, "_means", means)
    return epochs


def test_members_stop_one_by_one_at_their_best(monkeypatch):
    """With a patience of 2, member 2 stops after epoch 3, 0 after 4 and 1 after 6; each keeps the weights of
    its best epoch: 1, 2, 4."""
    epochs = scripted(monkeypatch)
    made = ensemble(ensemble_size=3, early_stopping=2)
    history = fit(made, epochs=50, on_epoch_end=lambda epoch, losses: epochs.append(weights(made)))
    h = history.history
    assert {name: len(h[f"{name}/val_loss"]) for name in SCRIPT} == {"0": 4, "1": 6, "2": 3}
    assert {name: len(h[f"{name}/loss"]) for name in SCRIPT} == {"0": 4, "1": 6, "2": 3}
    assert history.epochs == 6
    assert history.best_epochs == {"0": 2, "1": 4, "2": 1}
    for k, (name, best) in enumerate(history.best_epochs.items()):
        prefix = f"networks.{k}."
        own = {key: value for key, value in weights(made).items() if key.startswith(prefix)}
        assert equal(own, {key: value for key, value in epochs[best - 1].items() if key.startswith(prefix)})
        last = len(h[f"{name}/loss"]) - 1
        moved = {key for key in own if not torch.equal(epochs[-1][key], epochs[last][key])}
        assert not moved  # no step after the last epoch
        assert any(not torch.equal(epochs[last][key], epochs[last - 1][key]) for key in own)


def test_the_mean_loss_counts_stopped_members_at_their_best():
    """Once a member has stopped, its part in `loss` and `val_loss` is that of its best epoch."""
    made = ensemble(ensemble_size=3, early_stopping=1, initial_learning_rate=0.05)
    history = fit(made, epochs=30, data_reuse=0.0)
    h, best = history.history, history.best_epochs
    lengths = {name: len(h[f"{name}/loss"]) for name in best}
    assert len(set(lengths.values())) > 1
    for kind in ("loss", "val_loss"):
        for epoch in range(history.epochs):
            parts = [
                h[f"{n}/{kind}"][epoch] if epoch < lengths[n] else h[f"{n}/{kind}"][best[n] - 1] for n in best
            ]
            assert h[kind][epoch] == pytest.approx(np.mean(parts), rel=1e-12)


def test_save_best_only_keeps_the_best_of_each_member(monkeypatch, tmp_path):
    """The file holds every member with the weights of its own best epoch, also over a restart; without it,
    the last ones."""
    epochs = scripted(monkeypatch)

    def run(folder, *, stop=None, restore=False):
        made = ensemble(ensemble_size=3, checkpoint_filepath=folder, save_best_only=True, restore=restore)

        def listen(epoch, losses):
            if epoch == stop:
                raise Stop
            epochs.append(weights(made))

        fit(made, epochs=6, on_epoch_end=listen)
        return weights(load_approximator(folder / "model.safetensors"))

    got = run(tmp_path / "whole")
    best = {"networks.0.": 1, "networks.1.": 3, "networks.2.": 0}
    for prefix, epoch in best.items():
        assert all(torch.equal(got[key], epochs[epoch][key]) for key in got if key.startswith(prefix))
    with pytest.raises(Stop):
        run(tmp_path / "stopped", stop=3)
    assert equal(run(tmp_path / "stopped", restore=True), got)


EARLY = {"early_stopping": 1, "ema": 0.9, "initial_learning_rate": 0.05}


@pytest.mark.nightly_cases("offline, plain", "online", "disk")
@pytest.mark.parametrize(
    ("method", "settings"),
    [("fit_offline", {}), ("fit_offline", EARLY), ("fit_online", EARLY), ("fit_disk", EARLY)],
    ids=["offline, plain", "offline", "online", "disk"],
)
def test_a_resumed_training_ends_as_an_undisturbed_one(method, settings, tmp_path):
    """Stopped in epoch 3 and restored, an ensemble has the weights and the history of one that was never
    stopped, to the bit."""
    for k in range(3):
        np.savez(tmp_path / f"{k}.npz", **{name: value[50 * k : 50 * k + 50] for name, value in DATA.items()})
    own = {
        "fit_offline": {"data": DATA},
        "fit_online": {"num_batches_per_epoch": 4},
        "fit_disk": {"root": tmp_path, "pattern": "*.npz"},
    }[method]

    def run(on_epoch_end=None, **arguments):
        made = ensemble(ensemble_size=3, **settings, **arguments)
        options = {"data_reuse": 0.3, "validation_data": VALIDATION, "on_epoch_end": on_epoch_end}
        getattr(made, method)(epochs=6, batch_size=16, **options, **own)
        return made

    def stop(epoch, losses):
        if epoch == 3:
            raise Stop

    whole = run()
    with pytest.raises(Stop):
        run(stop, checkpoint_filepath=tmp_path / "stopped")
    resumed = run(checkpoint_filepath=tmp_path / "stopped", restore=True)
    assert resumed.history.history == whole.history.history
    assert equal(weights(resumed), weights(whole))
    assert equal(weights(load_approximator(tmp_path / "stopped" / "model.safetensors")), weights(whole))
    if settings:
        assert len({len(values) for values in whole.history.history.values()}) > 1  # some stopped earlier


def test_another_sharing_is_another_training(tmp_path):
    """A checkpoint does not go on with another data_reuse."""
    fit(ensemble(checkpoint_filepath=tmp_path), epochs=1, data_reuse=0.5)
    with pytest.raises(ConfigurationError, match="belongs to another training: expected data"):
        fit(ensemble(checkpoint_filepath=tmp_path, restore=True), epochs=1, data_reuse=0.4)


def test_a_member_that_explodes_is_named():
    """A loss that is not finite is an error with the name of its member."""

    @register("test_explodes")
    class Explodes(FlowMatching):
        def loss(self, theta, conditions, generator=None):
            return super().loss(theta, conditions, generator) * float("nan")

    made = ensemble(inference_networks={"fine": FLOW, "bad": Explodes(widths=(8,))}, ensemble_size=None)
    with pytest.raises(TrainingError, match="training loss of member 'bad' is nan in epoch 1"):
        fit(made)


def test_a_loaded_ensemble_goes_on_training(tmp_path):
    """A saved ensemble is an argument in place of networks; its roles are its own."""
    made = ensemble()
    fit(made, epochs=1)
    loaded = bf.load(str(made.approximator.save(tmp_path / "e")))
    again = ensemble(inference_networks=loaded, ensemble_size=None)
    before = weights(again)
    fit(again, epochs=1)
    assert not equal(before, weights(again))
    with pytest.raises(ConfigurationError, match=r"The approximator has inference_variables=\['theta'\]"):
        ensemble(inference_networks=loaded, ensemble_size=None, inference_variables=["x"])


def test_networks_are_compiled_member_by_member():
    """With compile= a backend, every member's network runs through it, and the result is that without."""
    plain, compiled = ensemble(), ensemble(compile="eager")
    assert fit(plain, epochs=1).history["loss"] == pytest.approx(
        fit(compiled, epochs=1).history["loss"], rel=1e-5
    )


# --- the mixture


@pytest.fixture(scope="module")
def trained():
    made = ensemble(inference_networks={"good": FLOW, "poor": CouplingFlow()}, ensemble_size=None)
    fit(made, epochs=10)
    return made


def test_the_workflow_asks_its_approximator(trained):
    """sample and log_prob pass on everything about members."""
    arguments = {"num_samples": 20, "conditions": VALIDATION, "seed": 4}
    for more in (
        {},
        {"merge_members": False},
        {"member_weights": {"good": 0.3, "poor": 0.7}},
        {"split": True},
    ):
        got, expected = trained.sample(**arguments, **more), trained.approximator.sample(**arguments, **more)
        assert got.keys() == expected.keys()
        for name in got:
            np.testing.assert_equal(got[name], expected[name])
    for more in ({}, {"merge_members": False}, {"member_weights": {"good": 1}}):
        np.testing.assert_equal(
            trained.log_prob(VALIDATION, **more), trained.approximator.log_prob(VALIDATION, **more)
        )


def test_stacking_on_held_out_data(trained):
    """Learned weights have no lower held-out log score than equal ones or any member, are kept and saved; a
    number simulates the data."""
    held_out = SIMULATOR.sample(200, seed=5)
    uniform = trained.log_prob(held_out).mean()
    learned = trained.stack(held_out, shrinkage=0)
    assert learned == trained.approximator.weights
    stacked = trained.log_prob(held_out).mean()
    each = trained.log_prob(held_out, merge_members=False)
    assert stacked >= max(uniform, *(values.mean() for values in each.values())) - 1e-7
    assert trained.stack(50) == trained.stack(np.int64(50)) != learned
    trained.approximator.weights = None


def test_disagreement(trained):
    """Members that learned the same agree where the data are; far out they do not; the measure without
    densities sees it too."""
    near = {"x": SIMULATOR.sample(12, seed=6)["x"]}
    far = {"x": near["x"] + 12.0}
    for measure in (None, "energy"):
        inside, outside = (
            trained.disagreement(x, num_samples=50, measure=measure, seed=1) for x in (near, far)
        )
        assert inside.shape == (12,)
        assert np.median(inside) < 0.5 * np.median(outside)
        np.testing.assert_array_equal(
            inside, trained.disagreement(near, num_samples=50, measure=measure, seed=1)
        )
    assert trained.disagreement(far, num_samples=50, seed=1).max() <= np.log(2) + 1e-9
    with pytest.raises(
        ConfigurationError, match=r"Unknown measure 'energie' of disagreement\. Did you mean 'energy'"
    ):
        trained.disagreement(near, measure="energie")


def test_disagreement_without_densities():
    """Where a member has no density, draws decide."""
    made = ensemble(
        inference_networks={"a": FLOW, "b": ConsistencyModel(widths=(16, 16))}, ensemble_size=None
    )
    fit(made, epochs=1)
    got = made.disagreement(VALIDATION, num_samples=30, seed=1)
    np.testing.assert_array_equal(
        got, made.disagreement(VALIDATION, num_samples=30, seed=1, measure="energy")
    )
    with pytest.raises(ConfigurationError, match="none for 'b'"):
        made.disagreement(VALIDATION, measure="jensen_shannon")
    with pytest.raises(ConfigurationError, match=r"none for 'b'.*approximator.weights"):
        made.stack(VALIDATION)


def test_an_approximator_is_an_ensemble():
    """The workflow's approximator has the surface that the rest of the house uses."""
    made = ensemble(info={"unit": "m"})
    approximator = made.approximator
    assert isinstance(approximator, EnsembleApproximator)
    assert not approximator.is_built
    fit(made, epochs=1)
    assert approximator.is_built
    assert approximator.shapes == {"theta": (2,), "x": (2,)}
    assert (approximator.inference_names, approximator.condition_names, approximator.has_draws) == (
        ("theta",),
        ("x",),
        True,
    )
    assert approximator.info == {"unit": "m"}
    assert not approximator.training
