"""The verdict on a registered or saved model, by fresh simulations or by those of a file."""

import json
from pathlib import Path

import numpy as np
import typer
from rich.console import Console
from rich.markup import escape

from sbi_models import diagnostics, seeding
from sbi_models.approximators import Approximator
from sbi_models.approximators.discrete import discrete_variables_of
from sbi_models.datasets import read_file
from sbi_models.diagnostics import Verdict
from sbi_models.errors import ConfigurationError, DataError, suggest
from sbi_models.pipeline.experiment.question import study_of
from sbi_models.pipeline.experiment.yaml_files import experiment_names, is_experiment, load_experiment
from sbi_models.pipeline.folders import project_root
from sbi_models.tracking import is_model_uri, load, open_store
from sbi_models.types import Variables
from sbi_models.workflows.likelihood.implied import ImpliedPosterior, as_posterior

SUFFIXES = (".npz", ".safetensors", ".pkl", ".pickle")


def diagnose_model(
    model: str,
    data: str | None,
    *,
    num_datasets: int,
    num_samples: int,
    seed: int,
    figures: Path | None,
    as_json: bool,
) -> Verdict:
    """Print the verdict on a model by test simulations, and write figures where asked for.

    Args:
        model: an experiment, by name or YAML file, for its champion; an address in the registry; or a saved
            file.
        data: an experiment, for fresh simulations of its study, or a file of them; by default that of
            `model`.
        num_datasets, num_samples, seed: fresh simulations, draws for each, and what both depend on.
        figures: a folder.
        as_json: the verdict as JSON in place of words.
    """
    source = data if data is not None else model
    if not is_experiment(source) and (data is None or Path(source).suffix not in SUFFIXES):
        raise ConfigurationError(
            f"Expected --data as an experiment or a file ending in {', '.join(SUFFIXES[:-1])}, got {data!r}. "
            f"{suggest(source, experiment_names())}"
        )
    approximator = _load(model)
    test = (
        _simulated(source, num_datasets, seed) if is_experiment(source) else _read(Path(source), approximator)
    )
    draws = approximator.sample(
        num_samples=num_samples, conditions=test, seed=seeding.derive(seed, "diagnose", "draws")
    )
    truth, names = {name: test[name] for name in approximator.inference_names}, _names(approximator)
    conditions = {name: test[name] for name in approximator.condition_names}
    discrete = {} if isinstance(approximator, ImpliedPosterior) else discrete_variables_of(approximator)
    verdict = diagnostics.judge(
        draws, truth, variable_names=names, conditions=conditions, discrete=discrete, seed=seed
    )
    if figures is not None:
        figures.mkdir(parents=True, exist_ok=True)
        usual = diagnostics.default_figures(draws, truth, variable_names=names, discrete=discrete)
        for name, figure in {**usual, "verdict": diagnostics.plot_verdict(verdict)}.items():
            figure.savefig(figures / f"{name}.png", dpi=120)
    typer.echo(json.dumps({"model": model} | verdict.as_dict(), indent=2)) if as_json else _show(verdict)
    return verdict


def _load(model: str) -> Approximator | ImpliedPosterior:
    if is_experiment(model):
        model = f"models:/{load_experiment(model).register_as.name}@champion"
    approximator = as_posterior(
        load(model, open_store(project_root(), create=False) if is_model_uri(model) else None, certify=False)
    )
    if not approximator.has_draws:
        raise ConfigurationError(
            f"Expected a model with posterior draws to diagnose, got {model}, which has point estimates only."
        )
    return approximator


def _simulated(source: str, num_datasets: int, seed: int) -> Variables:
    """Fresh simulations of the study of an experiment, from a stream that no training has seen."""
    return study_of(load_experiment(source)).simulator.rows(
        0, num_datasets, seed=seeding.derive(seed, "diagnose", "simulations"), progress=False
    )


def _read(file: Path, approximator: Approximator | ImpliedPosterior) -> Variables:
    if not file.is_file():
        raise DataError(f"{file}: no such file. Expected simulations with their true parameters.")
    variables = read_file(file)
    for name in (*approximator.inference_names, *approximator.condition_names):
        if name not in variables:
            raise DataError(f"Expected {name!r} in {file}, got none. {suggest(name, variables)}")
    return variables


def _names(approximator: Approximator | ImpliedPosterior) -> list[str] | None:
    """The names of all parameters, if the model knows those of its components."""
    known = approximator.info.get("variable_names", {})
    if not all(name in known for name in approximator.inference_names):
        return None
    names = [str(label) for name in approximator.inference_names for label in known[name]]
    width = sum(int(np.prod(approximator.shapes[name])) for name in approximator.inference_names)
    return names if len(names) == width else None


def _show(verdict: Verdict) -> None:
    console = Console(soft_wrap=True, highlight=False)
    first, *rows = str(verdict).splitlines()
    console.print(f"[bold {'green' if verdict.is_calibrated else 'yellow'}]{escape(first)}[/]")
    for row in rows:
        console.print(escape(row))
