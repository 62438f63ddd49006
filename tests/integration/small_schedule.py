"""Schedules the small Michelson pipeline in the current folder: `python small_schedule.py CRON SETTINGS`,
with changed settings as JSON."""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "flows"))

from small_run import small_experiment

from sbi_models.pipeline.schedule import Times, schedule

if __name__ == "__main__":
    schedule(small_experiment(json.loads(sys.argv[2])), Times(sys.argv[1]))
