"""The monitoring of a champion as Prefect deploys it: fresh simulations, the real observations, and an alarm.

`prefect.yaml` names this file; `python flows/monitor.py EXPERIMENT` runs it once, as `sbi-models monitor
EXPERIMENT` does.
"""

import sys

from sbi_models.cli.run import run_flow
from sbi_models.pipeline.experiment.yaml_files import load_experiment
from sbi_models.pipeline.flows.monitor import monitor

__all__ = ["monitor"]

if __name__ == "__main__":
    run_flow("monitor", load_experiment(sys.argv[1]))
