"""Settings of a training: optimizer, averaged weights, early stopping, precision, compilation, Lightning's
callbacks and loggers."""

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger
from linear_gaussian import SIMULATOR, workflow

from sbi_models import BasicWorkflow
from sbi_models.approximators import load_approximator
from sbi_models.errors import ConfigurationError
from sbi_models.training.module import TrainingModule
from sbi_models.training.settings import TrainingOptions, TrainingSettings

DATA = SIMULATOR.sample(128, seed=1)
VALIDATION = SIMULATOR.sample(40, seed=2)


def fit(made, *, epochs=4, **arguments):
    return made.fit_offline(DATA, epochs=epochs, batch_size=32, **arguments)


def weights(made):
    return torch.cat([value.detach().flatten() for value in getattr(made, "approximator", made).parameters()])


class Stop(Exception):
    """Raised by a listener to end a training."""


def test_options_and_settings_are_the_same():
    """Every keyword of a workflow is a setting with a default, and the reverse."""
    assert set(TrainingOptions.__annotations__) == set(TrainingSettings.__dataclass_fields__)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"ema": 1.5}, "ema as a decay between 0 and 1, such as 0.999, or None, got 1.5"),
        ({"early_stopping": 0}, "early_stopping .* positive integer, got 0"),
        ({"precision": "16"}, "Unknown precision '16'. Known: 16-mixed, 32-true, bf16-mixed"),
        ({"optimizer": "adam"}, "optimizer as a class of torch.optim, .* got 'adam'"),
        ({"compile": "inductr"}, "Unknown compile backend 'inductr'. Did you mean 'inductor'"),
        ({"threads": 0}, "threads as a positive integer, got 0"),
        ({"callbacks": pl.Callback()}, "callbacks as a list of Lightning callbacks"),
        ({"initial_learning_rate": "a"}, "positive initial_learning_rate, got 'a'"),
        ({"initial_learning_rate": float("inf")}, "positive initial_learning_rate, got inf"),
        ({"checkpoint_filepath": __file__}, "checkpoint_filepath as a folder, got the file"),
        ({"accelerator": "mps"}, "Unknown accelerator 'mps'"),
    ],
)
def test_settings_are_checked_when_the_workflow_is_made(arguments, message):
    """Settings that cannot be are refused by the constructor."""
    with pytest.raises(ConfigurationError, match=message):
        workflow(**arguments)


# --- optimizer


def test_an_optimizer_may_be_a_class_a_function_or_an_instance():
    """The three forms of the same optimizer give the same weights, other than those of the default."""
    like = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.01, momentum=0.5)
    forms = [
        {
            "optimizer": lambda parameters, lr: torch.optim.SGD(parameters, lr=lr, momentum=0.5),
            "initial_learning_rate": 0.01,
        },
        {"optimizer": like, "initial_learning_rate": 9.0},
    ]
    results = []
    for form in forms:
        made = workflow(**form)
        fit(made)
        results.append(weights(made))
    assert torch.equal(results[0], results[1])
    plain = workflow(initial_learning_rate=0.01)
    fit(plain)
    assert not torch.equal(weights(plain), results[0])
    by_class = workflow(optimizer=torch.optim.Adam, initial_learning_rate=0.01)
    online, default = ({"epochs": 2, "num_batches_per_epoch": 4} for _ in range(2))
    by_class.fit_online(**online)
    plain = workflow(initial_learning_rate=0.01)
    plain.fit_online(**default)
    torch.testing.assert_close(
        weights(by_class), weights(plain), rtol=1e-4, atol=1e-6
    )  # Adam is the default online


def test_a_step_of_plain_gradient_descent_is_the_formula():
    """One batch, one epoch, SGD: the weights move by minus the rate (a tenth, at the start of the warm-up)
    times the gradient."""
    made = workflow(optimizer=torch.optim.SGD, initial_learning_rate=1.0, seed=3)
    made.approximator.build(DATA, seed=3)
    before = weights(made).clone()
    gradients = []

    class Spy(pl.Callback):
        def on_before_optimizer_step(self, trainer, pl_module, optimizer):
            gradients.append(
                torch.cat([p.grad.flatten() for p in pl_module.approximator.parameters()]).clone()
            )

    watched = workflow(optimizer=torch.optim.SGD, initial_learning_rate=1.0, seed=3, callbacks=[Spy()])
    watched.fit_offline(DATA, epochs=1, batch_size=128)
    norm = gradients[0].norm()
    expected = before - 0.1 * gradients[0] * min(1.0, 1.5 / norm.item())
    torch.testing.assert_close(weights(watched), expected, rtol=1e-4, atol=1e-6)


def test_an_optimizer_that_is_none_is_refused():
    """A function that makes something else than an optimizer is refused before the first step."""
    with pytest.raises(ConfigurationError, match=r"make a torch\.optim\.Optimizer"):
        fit(workflow(optimizer=lambda parameters, lr: "adam"))


# --- averaged weights


def test_averaged_weights_are_the_average(tmp_path):
    """The weights after a training with ema are the moving average of those of its steps by the formula; the
    file holds them too."""
    steps = []

    class Spy(pl.Callback):
        def on_train_batch_end(self, trainer, pl_module, *rest):
            steps.append(weights(pl_module.approximator).clone())

    made = workflow(ema=0.8, callbacks=[Spy()], checkpoint_filepath=tmp_path)
    fit(made)
    average = steps[0]
    for n, step in enumerate(steps[1:], start=1):
        decay = min(0.8, (1 + n) / (10 + n))
        average = decay * average + (1 - decay) * step
    torch.testing.assert_close(weights(made), average, rtol=1e-5, atol=1e-6)
    assert not torch.allclose(steps[-1], average, atol=1e-5)
    assert torch.equal(weights(load_approximator(tmp_path / "model.safetensors")), weights(made))


def test_averaged_weights_are_validated():
    """The validation loss is that of the average: of averaged weights that hardly move, it hardly moves."""
    moving, slow = (workflow(ema=ema, initial_learning_rate=0.03) for ema in (None, 0.9999))
    losses = [fit(made, validation_data=VALIDATION).history["val_loss"] for made in (moving, slow)]
    assert losses[0] != losses[1]
    again = TrainingModule(
        slow.approximator, seed=slow.seed, learning_rate=1.0, weight_decay=0.0, total_steps=1
    )
    again.eval()
    with torch.no_grad():
        again.validation_step(slow.approximator.prepare(VALIDATION), 0)
    assert again.epoch_losses()["val_loss"] == pytest.approx(losses[1][-1], rel=1e-6)


# --- early stopping


def scripted(monkeypatch, losses):
    monkeypatch.setattr(
        TrainingModule, "epoch_losses", lambda self: {"loss": 1.0, "val_loss": losses[self.current_epoch]}
    )


def test_early_stopping_goes_back_to_the_best_epoch(monkeypatch, tmp_path):
    """Two epochs without a lower validation loss end a training of ten; the weights are those of the best
    epoch."""
    scripted(monkeypatch, [3.0, 2.0, 2.5, 2.2, 0.0, 0.0])
    epochs = []
    made = workflow(early_stopping=2, checkpoint_filepath=tmp_path)
    history = fit(
        made,
        epochs=10,
        validation_data=VALIDATION,
        on_epoch_end=lambda *_: epochs.append(weights(made).clone()),
    )
    assert history.history["val_loss"] == [3.0, 2.0, 2.5, 2.2]
    assert torch.equal(weights(made), epochs[1])
    assert not torch.equal(epochs[1], epochs[3])
    assert torch.equal(weights(load_approximator(tmp_path / "model.safetensors")), epochs[1])
    again, heard = workflow(early_stopping=2, checkpoint_filepath=tmp_path, restore=True), []
    assert (
        fit(again, epochs=10, validation_data=VALIDATION, on_epoch_end=lambda *_: heard.append(1)).history
        == history.history
    )
    assert heard == []
    assert torch.equal(weights(again), epochs[1])


def test_a_training_that_improves_is_not_stopped():
    """Early stopping leaves alone a training whose loss falls."""
    made = workflow(early_stopping=1, initial_learning_rate=1e-3)
    assert fit(made, epochs=2).epochs == 2


@pytest.mark.parametrize(
    "options",
    [{"ema": 0.9}, {"early_stopping": 2}, {"ema": 0.9, "early_stopping": 3, "optimizer": torch.optim.NAdam}],
)
def test_resumed_trainings_end_as_undisturbed_ones(options, tmp_path):
    """With averaged weights, early stopping and another optimizer too, stop and restore change no bit."""
    whole = workflow(**options, initial_learning_rate=0.02)
    expected = fit(whole, epochs=8, validation_data=VALIDATION)

    def stop(epoch, losses):
        if epoch == 3:
            raise Stop

    with pytest.raises(Stop):
        fit(
            workflow(**options, initial_learning_rate=0.02, checkpoint_filepath=tmp_path),
            epochs=8,
            validation_data=VALIDATION,
            on_epoch_end=stop,
        )
    resumed = workflow(**options, initial_learning_rate=0.02, checkpoint_filepath=tmp_path, restore=True)
    assert fit(resumed, epochs=8, validation_data=VALIDATION).history == expected.history
    assert torch.equal(weights(resumed), weights(whole))


# --- a second fit


def test_a_second_fit_goes_on_with_fresh_noise_and_simulations():
    """Fitting again starts from the weights there are, with a new schedule, and repeats neither simulations
    nor noise nor order."""
    made, seeds = workflow(), []
    plain = TrainingModule._generator

    def spy(self, seed):
        seeds.append(seed)
        return plain(self, seed)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TrainingModule, "_generator", spy)
        first = made.fit_online(epochs=3, num_batches_per_epoch=10).history["loss"]
        before = weights(made).clone()
        second = made.fit_online(epochs=3, num_batches_per_epoch=10).history["loss"]
    assert len(seeds) == len(set(seeds)) == 60
    assert not torch.equal(weights(made), before)
    assert second[0] < first[0] - 0.1


def test_each_fit_of_a_workflow_is_restored_from_a_checkpoint_of_its_own(tmp_path):
    """A program of two fits, run again with restore=True, trains nothing and ends with the same weights."""

    def program(heard):
        made = workflow(checkpoint_filepath=tmp_path, restore=True)
        for _ in range(2):
            fit(made, epochs=2, on_epoch_end=lambda epoch, losses: heard.append(epoch))
        return weights(made).clone()

    first, again = [], []
    result = program(first)
    assert first == [1, 2, 1, 2]
    assert torch.equal(program(again), result)
    assert again == []


# --- Lightning


def test_callbacks_and_loggers_are_passed_through(tmp_path):
    """Lightning's callbacks see `loss` and `val_loss` and can stop a training; a logger writes them; the list
    is left alone."""
    seen = []

    class Watch(pl.Callback):
        def on_train_end(self, trainer, pl_module):
            seen.append({name: float(value) for name, value in trainer.callback_metrics.items()})

    callbacks = [Watch(), pl.callbacks.EarlyStopping("val_loss", patience=1, min_delta=100.0)]
    made = workflow(callbacks=callbacks, logger=CSVLogger(tmp_path, name="", version=""))
    history = fit(made, epochs=6, validation_data=VALIDATION)
    assert history.epochs == 2
    assert len(callbacks) == 2
    assert seen[0]["loss"] == pytest.approx(history.history["loss"][-1], rel=1e-6)
    assert seen[0]["val_loss"] == pytest.approx(history.history["val_loss"][-1], rel=1e-6)
    written = np.genfromtxt(tmp_path / "metrics.csv", delimiter=",", names=True)
    np.testing.assert_allclose(
        written["val_loss"][np.isfinite(written["val_loss"])], history.history["val_loss"], rtol=1e-5
    )


def test_half_precision_trains():
    """bf16-mixed gives another, finite training whose losses are near those of full precision."""
    histories = [
        fit(workflow(precision=precision)).history["loss"] for precision in ("32-true", "bf16-mixed")
    ]
    assert histories[0] != histories[1]
    np.testing.assert_allclose(histories[1], histories[0], rtol=0.05)


def test_compiled_networks_train_the_same():
    """compile= changes the weights by rounding at most, and nothing compiled stays behind."""
    results = []
    for backend in (False, "eager"):
        made = workflow(compile=backend)
        fit(made, epochs=2)
        results.append(weights(made))
        assert all(module._compiled_call_impl is None for module in made.approximator.modules())
    torch.testing.assert_close(results[1], results[0], rtol=1e-4, atol=1e-6)


def test_an_approximator_is_trained_further(tmp_path):
    """A loaded approximator in place of a network goes on learning with its own roles; other roles are
    refused."""
    first = workflow(initial_learning_rate=1e-3)
    fit(first)
    loaded = load_approximator(first.approximator.save(tmp_path / "model"))
    further = BasicWorkflow(SIMULATOR, inference_network=loaded, seed=5, progress=False, accelerator="cpu")
    assert further.approximator is loaded
    before = weights(loaded).clone()
    further.fit_offline(DATA, epochs=1)
    assert not torch.equal(weights(loaded), before)
    with pytest.raises(ConfigurationError, match=r"has inference_variables=\['theta'\], got \['x'\]"):
        BasicWorkflow(inference_network=loaded, inference_variables="x")
