"""Outcomes of mutated model files and hostile data files, each read in its own process.

    python benchmarks/hostile_files.py models|data [FILES] [FIRST_SEED]

A file may take 8 seconds of the processor and 12 GB of address space. To reach: no raw exception, none that
dies, none of 3 GB.
"""

import json
import os
import resource
import signal
import sys
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import data_mutations
import mutations
import numpy as np

from sbi_models.approximators import files, load_approximator
from sbi_models.datasets import SimulationStore, read_file
from sbi_models.errors import ModelFileError, SbiModelsError
from sbi_models.pipeline.experiment.observations import read_observations

SECONDS, BYTES, MUCH = 8, 12 * 2**30, 3_000_000


def read_model(path: Path) -> str:
    """Outcome of a model file."""
    try:
        approximator = load_approximator(path)
    except ModelFileError:
        return "refused"
    except Exception as error:  # noqa: BLE001 - which is what is counted
        return f"RAW at load: {told(error)}"
    try:
        mutations.ask(approximator)
    except SbiModelsError:
        return "refused at sampling"
    except Exception as error:  # noqa: BLE001
        return f"RAW at sampling: {told(error)}"
    return "used"


def read_data(kind: str, path: Path) -> str:
    """Outcome of a data file."""
    try:
        if kind == "csv":
            read = {"x": read_observations(path, "x", (5, 1))[1]}
        else:
            read = SimulationStore.open(path).load() if kind == "store" else read_file(path)
    except SbiModelsError:
        read = {}
    except Exception as error:  # noqa: BLE001
        return f"RAW: {told(error)}"
    if kind == "store":
        try:
            SimulationStore.create(
                path, lambda a, b: {"theta": np.arange(a, b, dtype=float)}, 20, seed=1, fingerprint="f"
            )
        except SbiModelsError:
            pass
        except Exception as error:  # noqa: BLE001
            return f"RAW at create: {told(error)}"
    if any(max(value.shape, default=0) > 2**28 or value.nbytes > 2**28 for value in read.values()):
        return "RAW: absurd"
    return "used" if read else "refused"


def told(error: BaseException) -> str:
    """Type and place of an error."""
    own = [
        frame for frame in traceback.extract_tb(error.__traceback__) if "/benchmarks/" not in frame.filename
    ]
    return (
        f"{type(error).__name__} {Path(own[-1].filename).name}:{own[-1].lineno}"
        if own
        else type(error).__name__
    )


def apart(work: Callable[[], str]) -> str:
    """Result of a function in another process, or how that died."""
    out, into = os.pipe()
    process = os.fork()
    if process == 0:
        os.close(out)
        resource.setrlimit(resource.RLIMIT_AS, (BYTES, BYTES))
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        warnings.simplefilter("ignore")
        answer = work()
        answer += " with 3 GB" if resource.getrusage(resource.RUSAGE_SELF).ru_maxrss > MUCH else ""
        os.write(into, answer.encode())
        os._exit(0)
    os.close(into)
    with os.fdopen(out, "rb") as pipe:
        answer = pipe.read().decode()
    status = os.waitpid(process, 0)[1]
    return answer or f"RAW: died of {signal.Signals(status & 127).name}"


def main() -> None:
    """Print counts as JSON."""
    what, number, first = (
        sys.argv[1],
        int(sys.argv[2]) if len(sys.argv) > 2 else 1000,
        int(sys.argv[3]) if len(sys.argv) > 3 else 0,
    )
    counts: Counter[str] = Counter()
    with TemporaryDirectory() as folder:
        path, parts = Path(folder) / "file", {}
        if what == "models":
            for name, approximator in mutations.approximators().items():
                kind, settings, tensors = files.read(approximator.save(path))
                parts[name] = (
                    {"schema_version": files.SCHEMA_VERSION, "kind": kind, "settings": settings},
                    tensors,
                )
        for seed in range(first, first + number):
            if what == "models":
                kind = mutations.mutated(*list(parts.values())[seed % len(parts)], seed, path)
                counts[f"{kind}: {apart(lambda: read_model(path))}"] += 1
            else:
                kind = data_mutations.KINDS[seed % len(data_mutations.KINDS)]
                hostile = data_mutations.write(kind, seed, Path(folder))
                counts[f"{kind}: {apart(lambda kind=kind, hostile=hostile: read_data(kind, hostile))}"] += 1
    sys.stdout.write(json.dumps({"files": number} | dict(sorted(counts.items())), indent=1) + "\n")


if __name__ == "__main__":
    main()
