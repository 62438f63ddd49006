"""Trained workflows of the beds, cached on disk for all composition methods."""

import tempfile
import time
from pathlib import Path

from composition_beds import BEDS

import sbi_models as bf

NETWORKS = Path(tempfile.gettempdir()) / "sbi_models_composition"
BATCH_SIZE = 256
STEPS_AN_EPOCH = 500


def file_of(folder: Path, bed: str, prior: str, *, steps: int, simulations: int, seed: int) -> Path:
    """File of the network of a bed."""
    return folder / f"{bed}-{prior}-{steps}steps-{simulations}simulations-seed{seed}.safetensors"


def trained(bed: str, prior: str, *, steps: int, simulations: int, seed: int) -> bf.CompositionalWorkflow:
    """A workflow with its defaults, trained on simulations that were made before."""
    simulator, item = BEDS[bed].simulator(prior), list(BEDS[bed].item)
    roles = (
        {"summary_variables": item, "summary_network": "deep_set"}
        if BEDS[bed].are_sets
        else {"inference_conditions": item}
    )
    workflow = bf.CompositionalWorkflow(
        simulator=simulator,
        inference_variables=list(BEDS[bed].names),
        inference_network=bf.networks.DiffusionModel(),
        standardize="all",
        seed=seed,
        progress=False,
        **roles,
    )
    epochs = max(1, round(steps / -(-simulations // BATCH_SIZE)))
    workflow.fit_offline(
        simulator.sample(simulations, seed=seed, progress=False), epochs=epochs, batch_size=BATCH_SIZE
    )
    return workflow


def approximator_of(
    folder: Path, bed: str, prior: str, **training: int
) -> bf.approximators.CompositionalApproximator:
    """Trained network of a bed, from the folder or trained and saved there."""
    path = file_of(folder, bed, prior, **training)
    if not path.exists():
        clock = time.process_time()
        trained(bed, prior, **training).approximator.save(path)
        print(f"{path.name}: trained in {time.process_time() - clock:.0f} CPU s", flush=True)
    return bf.load(path)


def likelihood_of(folder: Path, bed: str, prior: str, *, steps: int, seed: int) -> bf.LikelihoodWorkflow:
    """Learned likelihood of single elements of a bed, trained online, from the folder or trained there."""
    path = folder / f"likelihood-{bed}-{prior}-{steps}steps-seed{seed}.safetensors"
    simulator = BEDS[bed].simulator(prior)
    known = simulator.priors or BEDS[bed].torch_prior()
    if not path.exists():
        observed, conditions = BEDS[bed].element
        workflow = bf.LikelihoodWorkflow(
            simulator,
            parameters=list(BEDS[bed].names),
            observables=list(observed),
            conditions=list(conditions) or None,
            iid="sets" if BEDS[bed].are_sets else "elements",
            prior=None if simulator.priors else known,
            seed=seed,
            progress=False,
        )
        clock = time.process_time()
        epochs = max(1, steps // STEPS_AN_EPOCH)
        workflow.fit_online(epochs=epochs, num_batches_per_epoch=STEPS_AN_EPOCH, batch_size=1024)
        workflow.approximator.save(path)
        print(f"{path.name}: trained in {time.process_time() - clock:.0f} CPU s", flush=True)
    return bf.LikelihoodWorkflow(network=bf.load(path), prior=known)


def workflows_of(folder: Path, bed: str, prior: str, **training: int) -> dict[bool, bf.CompositionalWorkflow]:
    """Network of a bed in a workflow with the simulator (True), and in one without (False)."""
    approximator = approximator_of(folder, bed, prior, **training)
    simulator = BEDS[bed].simulator(prior)
    return {
        True: bf.CompositionalWorkflow(simulator, inference_network=approximator),
        False: bf.CompositionalWorkflow(inference_network=approximator, prior=simulator.priors or None),
    }
