"""Modes of one script in turns, each in its own process on one core, for fair comparisons.

A script calls `in_turns` with the modes to measure. Each is a process `python SCRIPT MODE ...` that prints a
JSON object of figures as its last line. Peers run in an environment of their own, `.venv-peers`, which `make
peers` makes; without it they are left out, and that is said. What comes back, and goes to
benchmarks/speed/NAME.json, is the best of each figure over the rounds: other work on the machine only slows a
process down.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

HERE = Path(__file__).resolve().parent
PEERS = Path(os.environ.get("SBI_MODELS_PEERS", HERE.parent / ".venv-peers")) / "bin" / "python"
OF_PEERS = ("bayesflow", "sbi")
"""What the names of modes of peers begin with."""

Figures = dict[str, float]


def in_turns(script: str, modes: Mapping[str, Sequence[str]], *, rounds: int = 3) -> dict[str, Figures]:
    """The best figures of each mode; `modes` are the arguments of each by name."""
    missing = [name for name in modes if name.startswith(OF_PEERS)] if not PEERS.is_file() else []
    if missing:
        print(f"left out, for want of .venv-peers (make peers): {', '.join(missing)}", flush=True)
    core = max(os.sched_getaffinity(0))
    found: dict[str, list[Figures]] = {name: [] for name in modes if name not in missing}
    for turn in range(rounds):
        for name, times in found.items():
            times.append(figures_of(script, name, modes[name], core))
            print(f"{turn + 1}/{rounds} {name:28}", json.dumps(times[-1]), flush=True)
    return {
        name: {key: best(key, [each[key] for each in times]) for key in times[0]}
        for name, times in found.items()
    }


def best(key: str, figures: list[float]) -> float:
    """The best of one figure: the largest of a rate "per_cpu_second", the smallest of others."""
    return max(figures) if key.endswith("per_cpu_second") else min(figures)


def environment(settings: Mapping[str, str]) -> dict[str, str]:
    """Environment of this process with some settings; compiled modules stay."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"} | dict(
        settings
    )


def figures_of(script: str, name: str, arguments: Sequence[str], core: int) -> Figures:
    """Figures that a process of the script prints last."""
    python = PEERS if name.startswith(OF_PEERS) else sys.executable
    settings = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    settings |= {
        "KERAS_BACKEND": "jax" if "jax" in name else "torch",
        "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false",
    }
    done = subprocess.run(
        [shutil.which("taskset") or "taskset", "--cpu-list", str(core), str(python), script, *arguments],
        env=environment(settings),
        cwd=tempfile.gettempdir(),
        text=True,
        capture_output=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{script} {' '.join(arguments)} failed:\n{done.stderr[-3000:]}")
    figures: Figures = json.loads(done.stdout.splitlines()[-1])
    return figures


def keep(name: str, result: Mapping[str, object]) -> None:
    """Write the result of a script to benchmarks/speed/NAME.json."""
    folder = HERE / "speed"
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps(result, indent=1) + "\n")
