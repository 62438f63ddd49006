"""Diagnostics of a workflow: default and custom figures and metrics, and the verdict."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from sbi_models import diagnostics, seeding
from sbi_models.approximators import Approximator
from sbi_models.approximators.discrete import discrete_variables_of
from sbi_models.approximators.validation import as_variables, check_shapes
from sbi_models.arguments import known_arguments, positive_int
from sbi_models.errors import ConfigurationError, DataError, suggest
from sbi_models.numeric_input import real_array
from sbi_models.training.history import History
from sbi_models.types import Variables, VariablesLike

if TYPE_CHECKING:
    import pandas as pd

    from sbi_models.diagnostics import Verdict
    from sbi_models.diagnostics.plots import Figure


@known_arguments
class DiagnosticsMixin(ABC):
    """Diagnostics of an approximator on simulations whose true parameters are known."""

    approximator: Approximator
    history: History | None

    @abstractmethod
    def simulate(self, num_simulations: int, *, seed: int | None = None) -> Variables:
        """Simulate: name to array of shape (num_simulations, ...), raw space."""

    def plot_default_diagnostics(
        self,
        test_data: VariablesLike | int,
        num_samples: int = 1000,
        samples: Variables | None = None,
        *,
        variable_names: Sequence[str] | None = None,
        seed: int | None = None,
    ) -> "dict[str, Figure]":
        """Default figures: losses, recovery, calibration_ecdf, coverage, z_score_contraction.

        Losses are shown after a training only. Of categories, `confusion` and `reliability` take the places
        of recovery, coverage and z_score_contraction.

        Args:
            test_data: simulations with their true parameters, raw space, or how many to draw from the
                simulator.
            num_samples: posterior draws for each test simulation.
            samples: draws made before, name to (num_datasets, num_samples, width), raw space; then none are
                made.
            variable_names: a name for every parameter, in order.
            seed: seed of test data and draws.
        """
        samples, truth = self._tested(test_data, num_samples, samples, seed)
        history = self.history.history if self.history is not None else None
        return diagnostics.default_figures(
            samples,
            truth,
            history=history,
            variable_names=variable_names,
            discrete=discrete_variables_of(self.approximator),
        )

    def compute_default_diagnostics(
        self,
        test_data: VariablesLike | int,
        num_samples: int = 1000,
        samples: Variables | None = None,
        *,
        as_data_frame: bool = True,
        variable_names: Sequence[str] | None = None,
        seed: int | None = None,
    ) -> "pd.DataFrame | dict[str, dict[str, float]]":
        """Default metrics by parameter: NRMSE, log gamma, calibration error, posterior contraction.

        Arguments as for the figures.
        """
        samples, truth = self._tested(test_data, num_samples, samples, seed)
        frame = diagnostics.default_metrics(samples, truth, variable_names=variable_names)
        return (
            frame
            if as_data_frame
            else {
                str(metric): {str(name): float(row[name]) for name in row.index}
                for metric, row in frame.iterrows()
            }
        )

    def verdict(
        self,
        test_data: VariablesLike | int,
        num_samples: int = 500,
        samples: Variables | None = None,
        *,
        prior: Variables | None = None,
        variable_names: Sequence[str] | None = None,
        false_alarms: float = 0.01,
        seed: int | None = None,
    ) -> "Verdict":
        """Verdict on the posteriors: calibrated, over-confident, under-confident, biased or uninformative.

        `print(workflow.verdict(500))` tells it in words, `as_dict()` gives it for JSON. For composed
        posteriors pass their draws as `samples` with the true parameters as `test_data`.

        Args:
            test_data, num_samples, samples, variable_names, seed: arguments as for the default figures; 20
                data sets or more, of which 300 tell much.
            prior: draws of the prior by variable, (n_prior, width), raw space; without them the true
                parameters stand for it.
            false_alarms: the probability that right posteriors are called flawed.
        """
        seed = seeding.resolve(seed)
        self._check_draws(samples)
        if not isinstance(test_data, Mapping):
            test_data = self._test_simulations(test_data, seed)
        draws, truth = self._tested(test_data, num_samples, samples, seed)
        return diagnostics.judge(
            draws,
            truth,
            prior,
            variable_names=variable_names,
            conditions=_known(test_data, self.approximator.condition_names, len(next(iter(truth.values())))),
            discrete=discrete_variables_of(self.approximator),
            false_alarms=false_alarms,
            seed=seeding.derive(seed, "verdict"),
        )

    def plot_custom_diagnostics(
        self,
        test_data: VariablesLike | int,
        plot_fns: Mapping[str, Callable[..., Any]],
        num_samples: int = 1000,
        samples: Variables | None = None,
        *,
        variable_names: Sequence[str] | None = None,
        seed: int | None = None,
    ) -> dict[str, Any]:
        """Custom figures, from functions of draws and test data.

        `{name: fn(samples, test_data, variable_keys=, variable_names=)}` gives `{name: result of fn}`.

        `samples` are draws (num_datasets, num_samples, width) by variable, `test_data` all variables of the
        test data, both in raw space; `variable_keys` are the names of the inferred variables. Other arguments
        as for the default figures.
        """
        return self._custom(
            plot_fns,
            test_data,
            num_samples=num_samples,
            samples=samples,
            variable_names=variable_names,
            seed=seed,
        )

    def compute_custom_diagnostics(
        self,
        test_data: VariablesLike | int,
        metrics: Mapping[str, Callable[..., Any]],
        num_samples: int = 1000,
        samples: Variables | None = None,
        *,
        variable_names: Sequence[str] | None = None,
        seed: int | None = None,
    ) -> dict[str, Any]:
        """Metrics of your own; functions and arguments as for `plot_custom_diagnostics`."""
        return self._custom(
            metrics,
            test_data,
            num_samples=num_samples,
            samples=samples,
            variable_names=variable_names,
            seed=seed,
        )

    def _custom(
        self,
        functions: Mapping[str, Callable[..., Any]],
        test_data: VariablesLike | int,
        *,
        num_samples: int,
        samples: Variables | None,
        variable_names: Sequence[str] | None,
        seed: int | None,
    ) -> dict[str, Any]:
        for name, function in functions.items():
            if not callable(function):
                raise ConfigurationError(f"Expected a function under the name {name!r}, got {function!r}.")
        self._check_draws(samples)
        seed = seeding.resolve(seed)
        if not isinstance(test_data, Mapping):
            test_data = self._test_simulations(test_data, seed)
        samples, _ = self._tested(test_data, num_samples, samples, seed)
        keys = list(self.approximator.inference_names)
        names = None if variable_names is None else list(variable_names)
        return {
            name: fn(samples, test_data, variable_keys=keys, variable_names=names)
            for name, fn in functions.items()
        }

    def _test_simulations(self, number: int, seed: int) -> Variables:
        number = positive_int(number, "test_data (if not a dict)")
        return self.simulate(number, seed=seeding.derive(seed, "test simulations"))

    def _check_draws(self, samples: Variables | None) -> None:
        """Raise ConfigurationError, before anything is simulated, if draws are needed and there are none."""
        if samples is None and not self.approximator.has_draws:
            raise ConfigurationError(
                "Expected an approximator with posterior draws to diagnose, got one that has no draws, "
                "only point estimates. Compare estimate(conditions=test_data) with the true parameters, "
                "pass samples=, or train with a parametric rule such as 'mv_normal'."
            )

    def _tested(
        self, test_data: VariablesLike | int, num_samples: int, samples: Variables | None, seed: int | None
    ) -> tuple[Variables, Variables]:
        """Draws and true parameters of the test data."""
        self._check_draws(samples)
        seed = seeding.resolve(seed)
        if not isinstance(test_data, Mapping):
            test_data = self._test_simulations(test_data, seed)
        names = self.approximator.inference_names
        truth = as_variables(test_data, names, what="test data")
        if self.approximator.is_built:
            check_shapes(truth, self.approximator.shapes, "test data")
        if samples is None:
            samples = self.approximator.sample(
                num_samples=num_samples, conditions=test_data, seed=seeding.derive(seed, "test draws")
            )
        missing = [name for name in names if name not in samples]
        if missing:
            raise DataError(f"samples hold no draws of {missing[0]!r}. {suggest(missing[0], samples)}")
        return {name: real_array(samples[name], f"samples of {name!r}") for name in names}, truth


def _known(test_data: VariablesLike, names: Sequence[str], n: int) -> Variables | None:
    """Conditions of the posteriors, as far as the test data have one array row for each of n data sets."""
    arrays = {
        name: test_data[name] for name in names if name in test_data and hasattr(test_data[name], "dtype")
    }
    known = {name: np.asarray(value) for name, value in arrays.items() if np.ndim(value) and len(value) == n}
    return known or None
