"""The retraining of a champion as Prefect deploys it: more simulations, and the pipeline with all of them.

`prefect.yaml` names this file; `python flows/retrain.py EXPERIMENT` runs it once, as `sbi-models retrain
EXPERIMENT` does.
"""

import sys

from sbi_models.cli.run import run_flow
from sbi_models.pipeline.experiment.yaml_files import load_experiment
from sbi_models.pipeline.flows.retrain import retrain

__all__ = ["retrain"]

if __name__ == "__main__":
    run_flow("retrain", load_experiment(sys.argv[1]))
