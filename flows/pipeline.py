"""The pipeline as Prefect deploys it: simulate, train, diagnose, register, infer, compose.

`prefect.yaml` names this file; `python flows/pipeline.py EXPERIMENT` runs it once, as `sbi-models run
EXPERIMENT` does.
"""

import sys

from sbi_models.cli.run import run_flow
from sbi_models.pipeline.experiment.yaml_files import load_experiment
from sbi_models.pipeline.flows.pipeline import pipeline

__all__ = ["pipeline"]

if __name__ == "__main__":
    run_flow("pipeline", load_experiment(sys.argv[1]))
