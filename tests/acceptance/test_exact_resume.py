"""A training that is killed again and again, at any moment, ends with the weights of one that was not."""

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from sbi_models.approximators import load_approximator

SCRIPT = """
import sys
sys.path.insert(0, sys.argv[1])
from linear_gaussian import SIMULATOR, workflow

made = workflow(checkpoint_filepath=sys.argv[2], restore=True, ema=0.9, early_stopping=50)
arguments = dict(
    batch_size=32,
    validation_data=SIMULATOR.sample(200, seed=2),
    on_epoch_end=lambda epoch, losses: print(epoch, flush=True),
)
if sys.argv[3] == "fit_online":
    made.fit_online(epochs=60, num_batches_per_epoch=10, **arguments)
else:
    made.fit_offline(SIMULATOR.sample(320, seed=1), epochs=60, **arguments)
print("done", flush=True)
"""


def start(folder, method):
    helpers = str(Path(__file__).parents[1] / "workflows")
    command = [sys.executable, "-W", "ignore", "-c", SCRIPT, helpers, str(folder), method]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


@pytest.mark.integration
@pytest.mark.timeout(400)
@pytest.mark.parametrize("method", ["fit_online", "fit_offline"])
def test_killed_at_any_moment(method, tmp_path):
    """Killed with SIGKILL four times, at moments drawn at random between epochs 1 and 12 of each life, within
    steps and writes of files."""
    whole = start(tmp_path / "whole", method)
    assert whole.communicate()[0].endswith("done\n")
    rng, heard = random.Random(7), []
    for _ in range(4):
        process = start(tmp_path / "killed", method)
        heard += [process.stdout.readline().strip() for _ in range(rng.randint(1, 12))]
        time.sleep(rng.uniform(0.0, 0.05))
        process.send_signal(signal.SIGKILL)
        heard += process.communicate()[0].split()
        assert process.returncode == -signal.SIGKILL
    last = start(tmp_path / "killed", method)
    assert last.communicate()[0].endswith("done\n")
    assert "done" not in heard
    assert max(map(int, heard)) >= 8
    files = [
        load_approximator(tmp_path / name / "model.safetensors").state_dict() for name in ("whole", "killed")
    ]
    assert all(torch.equal(files[0][name], files[1][name]) for name in files[0])
