"""Tables of benchmarks/RESULTS.md from the files in benchmarks/results and benchmarks/speed.

python benchmarks/tables.py
"""

import json
from collections.abc import Iterator
from pathlib import Path
from statistics import mean, median
from typing import Any

from quality import CLASSIFIERS, RECORDS, RESULTS

HERE = Path(__file__).resolve().parent
SPEED = HERE / "speed"

Result = dict[str, Any]


def row(*cells: object) -> str:
    """A row of a table in Markdown."""
    return f"| {' | '.join(map(str, cells))} |"


def quality() -> Iterator[str]:
    """C2ST of all scored cells."""
    results = sorted(
        (json.loads(path.read_text()) for path in RESULTS.glob("*.json")),
        key=lambda r: (r["task"], r["budget"], r["network"]),
    )
    yield from (
        "# Quality of posteriors",
        "",
        "C2ST of 10 000 draws against 10 000 reference draws: mean (median, number of "
        "observations); 0.5 is perfect. Record: the lowest",
        "published of amortized methods, as of November 2026. CPU seconds of training, and of "
        "drawing 100 000 samples,",
        "of one thread. Made by `python benchmarks/quality.py`.",
        "",
        "| task | simulations | network | seed | C2ST mlp | record | C2ST random forest | record "
        "| training | sampling | trained on |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    )
    for r in results:
        cells: list[str] = []
        for name, record in zip(
            CLASSIFIERS, RECORDS.get(r["task"], {}).get(r["budget"], (None, None)), strict=True
        ):
            scores = r.get(f"c2st_{name}")
            cells += [
                f"{mean(scores):.3f} ({median(scores):.3f}, {len(scores)})" if scores else "",
                str(record or ""),
            ]
        seconds = [f"{r[f'{what}_cpu_seconds']:.0f} s" for what in ("training", "sampling")]
        yield row(
            r["task"],
            r["budget"],
            r["network"],
            r["seed"],
            *cells,
            *seconds,
            r["choices"].get("trained on", "simulations"),
        )


def speed() -> Iterator[str]:
    """Results of each speed benchmark."""
    yield from (
        "",
        "# Speed",
        "",
        "On one core, in turns, the best of all rounds. The machine is shared: compare within a "
        "table. Peers: BayesFlow 2.0.12 on PyTorch",
        "and on JAX, sbi 0.27.0.",
    )
    parts = {
        "training_speed": training,
        "time_to_quality": to_quality,
        "start_up": seconds,
        "overhead": seconds,
    }
    for name, part in parts.items():
        if (path := SPEED / f"{name}.json").is_file():
            yield from ("", f"`python benchmarks/{name}.py`", "")
            yield from part(json.loads(path.read_text()))
    drawn = {
        path.stem.removeprefix("sampling_speed_"): json.loads(path.read_text())
        for path in sorted(SPEED.glob("sampling_speed_*.json"))
    }
    if drawn:
        yield from ("", "`python benchmarks/sampling_speed.py`", "", *sampling(drawn))
    if (path := SPEED / "gpu.jsonl").is_file():
        yield from gpu([json.loads(line) for line in path.read_text().splitlines()])


def training(result: Result) -> Iterator[str]:
    """Steps per CPU second."""
    yield from (row("networks, batch", "", "weights", "steps / CPU s", "ours over it"), row(*["---"] * 5))
    for kind, found in result.items():
        for name, r in found.items():
            yield row(
                kind, name, r["weights"], f"{r['steps_per_cpu_second']:.1f}", f"{r['ours_over_it']:.2f}"
            )


def sampling(result: Result) -> Iterator[str]:
    """Draws and densities per CPU second."""
    yield from (
        row(
            "network",
            "",
            "training CPU s",
            "C2ST mlp",
            "draws / CPU s",
            "ours over it",
            "densities / CPU s",
            "ours over it",
        ),
        row(*["---"] * 8),
    )
    for kind, found in result.items():
        for name, r in found.items():
            cells = []
            for key in ("draws_per_cpu_second", "log_probs_of_500_per_cpu_second"):
                cells += [f"{r[key]:.0f}", f"{found['ours'][key] / r[key]:.1f}"] if key in r else ["", ""]
            yield row(kind, name, f"{r['training_cpu_seconds']:.0f}", f"{r['c2st_mlp']:.3f}", *cells)


def to_quality(result: Result) -> Iterator[str]:
    """Shortest training that reaches the target, or the longest tried."""
    yield from (row("", "epochs", "CPU s", "C2ST mlp"), row(*["---"] * 4))
    for name, r in result.items():
        yield row(name, r["epochs"], f"{r['cpu_seconds']:.1f}", f"{r['c2st_mlp']:.3f}")


def seconds(result: Result) -> Iterator[str]:
    """CPU seconds, and wall seconds where measured."""
    keys = list(next(iter(result.values())))
    yield from (row("", *(key.replace("_", " ") for key in keys)), row(*["---"] * (1 + len(keys))))
    for name, r in result.items():
        yield row(name, *(f"{r[key]:.2f}" for key in keys))


def gpu(lines: list[Result]) -> Iterator[str]:
    """GPU measurements."""
    device, *measures = lines
    yield from (
        "",
        f"`python benchmarks/gpu.py`, {device['device']}, PyTorch {device['torch']}",
        "",
        row("", ""),
        row("---", "---"),
    )
    for r in measures:
        numbers = {
            key: value for key, value in r.items() if isinstance(value, float | int) and key != "took_s"
        }
        told = "; ".join(f"{key.replace('_', ' ')}: {value:,.0f}" for key, value in numbers.items())
        yield row(r["measure"], told or r.get("failed", ""))


def main() -> None:
    """Write the file."""
    (HERE / "RESULTS.md").write_text("\n".join([*quality(), *speed()]) + "\n")
    print(f"{HERE / 'RESULTS.md'}")


if __name__ == "__main__":
    main()
