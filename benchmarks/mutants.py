"""Share of small edits of the package, each a wrong answer, that the tests notice.

python benchmarks/mutants.py [--number 330] [--seed 1] [--module WORDS] [--only-survivors] [--table] [--page]

A seeded sample of mutants of the modules in mutants_modules.toml, at least FLOOR of each. A mutant is killed
if one of the quick tests of its own folder that execute its line fails, or does not end. The command ends
with status 1 if less than TOTAL of those that mutants_equivalent.toml does not name are killed, or less than
EACH in a module, and with status 2 if tests fail without an edit, too. Results are kept in build/mutants, so
that a run that was stopped goes on.
"""

import argparse
import hashlib
import json
import os
import random
import re
import signal
import sys
import time
import tomllib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

from mutant_files import Mutant, mutants_of
from mutant_page import code, table_row, write_page
from mutant_tests import Ended, copied, first_failure, in_fork, observe, preload

HERE = Path(__file__).resolve().parent
PROJECT = HERE.parent
WORK = PROJECT / "build" / "mutants"

TOTAL, EACH = 92, 90
"""Per cent of the mutants to be killed in all, and in every module."""

FLOOR = 8
"""Mutants of a module, however small."""

QUICK = 3
"""CPU seconds, while it is traced, beyond which a test is not asked."""

BUDGET = 10
"""CPU seconds of the tests that one mutant is judged by, the fastest first."""

WEIGHTS = {"part": 4, "constant": 3, "arithmetic": 3, "boundary": 3, "axis": 3, "swap": 3, "default": 3}
WEIGHTS |= {"return": 1, "not": 1, "negation": 1}
"""How often an operator is drawn; 2 for others."""


@dataclass(frozen=True)
class Module:
    """A row of the table.

    Attributes:
        name: name of the row.
        files: files that are mutated.
        tests: folders and files of the tests that judge it.
        functions: pattern of the names of functions that are mutated; all by default.
        parts: whether elements of lists are left out, too.
    """

    name: str
    files: tuple[str, ...]
    tests: tuple[str, ...]
    functions: str = ""
    parts: bool = False


def modules(project: Path, pattern: str = "") -> tuple[list[Module], dict[str, list[str]]]:
    """The rows of mutants_modules.toml whose names have a pattern, and the libraries that tests import."""
    content = tomllib.loads((HERE / "mutants_modules.toml").read_text())
    rows = []
    for entry in content["module"]:
        files = sorted(str(p.relative_to(project)) for name in entry["files"] for p in project.glob(name))
        assert files, f"no file for {entry['name']}"
        rows.append(Module(**entry | {"files": tuple(files), "tests": tuple(entry["tests"])}))
    return [row for row in rows if re.search(pattern, row.name)], content["imports"]


def equivalent() -> dict[tuple[str, str, str, str], str]:
    """Mutants that compute the same, with the reason."""
    content = tomllib.loads((HERE / "mutants_equivalent.toml").read_text())
    return {
        (entry["file"], entry["function"], entry["original"], entry["mutated"]): entry["reason"]
        for entry in content.get("equivalent", [])
    }


def candidates(module: Module, project: Path) -> list[Mutant]:
    """All mutants of a module."""
    found = [
        mutant
        for file in module.files
        for mutant in mutants_of(file, (project / file).read_bytes(), parts=module.parts)
    ]
    return [mutant for mutant in found if re.search(module.functions, mutant.function)]


def sample(mutants: Sequence[Mutant], number: int, seed: str, project: Path) -> list[Mutant]:
    """Some mutants that compile, operators by their weights, other lines before the same line again.

    More of them begin with the same ones.
    """
    generator = random.Random(seed)  # noqa: S311
    kinds: dict[str, list[Mutant]] = defaultdict(list)
    for mutant in mutants:
        kinds[mutant.kind].append(mutant)
    for same in kinds.values():
        generator.shuffle(same)
    chosen: list[Mutant] = []
    seen: set[tuple[str, int]] = set()
    while len(chosen) < number and kinds:
        kind = generator.choices(list(kinds), [WEIGHTS.get(name, 2) for name in kinds])[0]
        fresh = [mutant for mutant in kinds[kind] if (mutant.file, mutant.line) not in seen]
        mutant = (fresh or kinds[kind])[0]
        kinds[kind].remove(mutant)
        if not kinds[kind]:
            del kinds[kind]
        if not mutant.compiles((project / mutant.file).read_bytes()):
            continue
        seen.add((mutant.file, mutant.line))
        chosen.append(mutant)
    return chosen


def shares(
    rows: Sequence[Module], project: Path, number: int, seed: int
) -> Iterator[tuple[Module, list[Mutant]]]:
    """The sample of each module: by its number of possible mutants, at least FLOOR."""
    found = [candidates(row, project) for row in rows]
    total = sum(map(len, found))
    for row, mutants in zip(rows, found, strict=True):
        yield (
            row,
            sample(mutants, max(FLOOR, round(number * len(mutants) / total)), f"{seed} {row.name}", project),
        )


class Observations:
    """Which tests execute which lines, kept for each file of tests until it or what it executes changes.

    Args:
        root: copy of the project.
        files: files whose lines count.
    """

    def __init__(self, root: Path, files: Sequence[str]) -> None:
        self.root, self.files = root, set(files)

    def of(self, module: Module) -> dict[str, Any]:
        """Quick tests of a module, its doctests included: seconds, and lines by file.

        Raises:
            SystemExit: if tests fail without an edit.
        """
        paths = [path for name in module.tests for path in sorted(self._files(self.root / name))]
        names = [*(str(path.relative_to(self.root)) for path in paths), *module.files]
        return {test: entry for name in names for test, entry in self._tests(name).items()}

    @staticmethod
    def _files(path: Path) -> Iterator[Path]:
        yield from [path] if path.is_file() else path.rglob("test_*.py")

    def _tests(self, name: str) -> dict[str, Any]:
        kept = WORK / "lines" / f"{name.replace('/', '-')}.json"
        if kept.exists():
            entry = json.loads(kept.read_text())
            if entry["state"] == self._state(name, entry["state"]["sources"]):
                found: dict[str, Any] = entry["tests"]
                return found
        found = self._observe(name)
        for test in found.values():
            test["lines"] = {file: lines for file, lines in test["lines"].items() if file in self.files}
        sources = sorted({file for test in found.values() for file in test["lines"]})
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_text(json.dumps({"state": self._state(name, sources), "tests": found}))
        return found

    def _state(self, name: str, sources: Iterable[str]) -> dict[str, Any]:
        """Hashes of a file of tests, of the modules beside it that are none, and of what it executes."""
        folder = (self.root / name).parent
        helpers = [
            p
            for p in sorted(folder.glob("*.py"))
            if name.startswith("tests/") and not p.name.startswith("test_")
        ]
        own = {str(p.relative_to(self.root)): _sha(p) for p in [self.root / name, *helpers]}
        return {"tests": own, "sources": {file: _sha(self.root / file) for file in sources}}

    def _observe(self, name: str) -> dict[str, Any]:
        output = self.root.parent / "lines.json"
        ended = in_fork(self.root, lambda: observe([name], self.root, output, QUICK), 3600)
        if ended.word != "passed":
            print((self.root.parent / "log.txt").read_text()[-5000:])
            sys.exit(f"Expected tests that pass without an edit, got {ended.word}:\n{ended.detail}")
        found: dict[str, Any] = json.loads(output.read_text())
        print(f"{name}: {len(found)} quick tests, traced in {ended.seconds:.0f} s", flush=True)
        return found


@cache
def _sha(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def judges(mutant: Mutant, tests: dict[str, Any]) -> tuple[list[str], float]:
    """Quick tests that execute a mutant, or at least its file, and their seconds; those with set-ups last."""
    first, last = mutant.executed
    of_file = {name: test for name, test in tests.items() if mutant.file in test["lines"]}
    of_line = {
        name: test
        for name, test in of_file.items()
        if any(first <= line <= last for line in test["lines"][mutant.file])
    }
    chosen: list[str] = []
    spent, prepared = 0.0, set()
    usable = of_line or of_file
    for name in sorted(usable, key=lambda name: usable[name]["seconds"] + usable[name]["shared"]):
        file = name.split("::")[0]
        cost = usable[name]["seconds"] + (0 if file in prepared else usable[name]["shared"])
        if spent + cost <= BUDGET or not chosen:
            chosen.append(name)
            spent += cost
            prepared |= {file} if usable[name]["shared"] > 0 else set()

    def order(name: str) -> tuple[bool, str, float]:
        slow = usable[name]["shared"] > 0.2
        return slow, name.partition("::")[0] if slow else "", usable[name]["seconds"]

    return sorted(chosen, key=order), spent


def judge(mutant: Mutant, tests: dict[str, Any], root: Path) -> tuple[Ended, int]:
    """How the tests of a mutant end, and their number."""
    names, seconds = judges(mutant, tests)
    if not names:
        return Ended("passed", "no test executes it", 0.0), 0
    longest = max(5.0, 5 * max(tests[name]["seconds"] for name in names))
    path = root / mutant.file
    original, times = path.read_bytes(), (path.stat().st_atime, path.stat().st_mtime)
    path.write_bytes(mutant.apply(original))
    try:
        ended = in_fork(root, lambda: first_failure(names, longest), 120 + 20 * seconds)
    finally:
        path.write_bytes(original)
        os.utime(path, times)
    return ended, len(names)


@dataclass
class Records:
    """Results of mutants in a file of JSON lines; the last one of a mutant counts."""

    path: Path

    def __post_init__(self) -> None:
        lines = self.path.read_text().splitlines() if self.path.exists() else []
        self.found = {self._key(entry): entry for entry in map(json.loads, lines)}

    @staticmethod
    def _key(entry: dict[str, Any]) -> tuple[str, ...]:
        return tuple(entry[name] for name in ("file", "function", "original", "mutated"))

    def get(self, mutant: Mutant) -> dict[str, Any] | None:
        """The result of a mutant, if there is one."""
        return self.found.get(mutant.name)

    def add(self, module: Module, mutant: Mutant, ended: Ended, number: int) -> None:
        """Append a result."""
        names = ("file", "function", "kind", "line", "original", "mutated")
        entry = {"module": module.name, "word": ended.word, "detail": ended.detail, "tests": number}
        entry |= {name: value for name, value in asdict(mutant).items() if name in names}
        entry["seconds"] = round(ended.seconds, 1)
        with self.path.open("a") as file:
            file.write(json.dumps(entry) + "\n")
        self.found[mutant.name] = entry


def run(
    chosen: Sequence[tuple[Module, list[Mutant]]], options: argparse.Namespace, records: Records
) -> list[str]:
    """Judge all mutants that have no result yet; returns killers that fail without an edit, too."""
    same = equivalent()

    def is_due(m: Mutant) -> bool:
        return m.name not in same and _is_due(records.get(m), options)

    todo = {module: list(filter(is_due, mutants)) for module, mutants in chosen}
    all_rows, imports = modules(PROJECT)
    started, done, total, unsound = time.monotonic(), 0, sum(map(len, todo.values())), []
    with copied(PROJECT) as root:
        observations = Observations(root, [file for row in all_rows for file in row.files])
        for module, mutants in todo.items():
            if not mutants:
                continue
            preload([name for group in imports for name in imports[group] if _before(group, module)])
            tests = observations.of(module)
            killers: set[str] = set()
            for mutant in mutants:
                ended, number = judge(mutant, tests, root)
                records.add(module, mutant, ended, number)
                done += 1
                left = (time.monotonic() - started) / done * (total - done) / 60
                word = {"passed": "SURVIVED", "failed": "killed"}.get(ended.word, ended.word)
                print(f"[{done}/{total}, {left:.0f} min left] {word} after {ended.seconds:.0f} s: ", end="")
                edit = f"{mutant.kind}: {mutant.original} -> {mutant.mutated}"
                print(f"{mutant.file}:{mutant.line} {edit}", flush=True)
                killers |= {name for name in tests if ended.detail.startswith(f"{name}: ")}
            check = in_fork(root, partial(first_failure, sorted(killers), 60), 3600) if killers else None
            unsound += [f"{module.name}: {check.detail}"] if check and check.detail else []
    return unsound


def _before(group: str, module: Module) -> bool:
    """Whether the tests of a module come after, or are, those that a group of imports is for."""
    order = list(tomllib.loads((HERE / "mutants_modules.toml").read_text())["imports"])
    own = next(i for i, name in enumerate(order) if module.tests[0].startswith(name))
    return order.index(group) <= own


def _is_due(result: dict[str, Any] | None, options: argparse.Namespace) -> bool:
    if options.only_survivors:
        return result is not None and result["word"] == "passed"
    return result is None or result["word"] == "died"


def table(chosen: Sequence[tuple[Module, list[Mutant]]], records: Records) -> tuple[list[str], bool]:
    """Rows of Markdown of the modules and all together, and whether enough are killed."""
    same, lines, enough = equivalent(), [], True
    sums = [0, 0, 0]
    for module, mutants in chosen:
        judged = [m for m in mutants if m.name not in same]
        results = [records.get(m) for m in judged]
        killed = sum(r is not None and r["word"] in ("failed", "timeout") for r in results)
        counts = [len(mutants), len(mutants) - len(judged), killed]
        sums = [a + b for a, b in zip(sums, counts, strict=True)]
        lines.append(table_row(module.name, counts))
        enough &= 100 * killed >= EACH * len(judged)
    enough &= 100 * sums[2] >= TOTAL * (sums[0] - sums[1])
    head = ["| module | mutants | equivalent | killed | of the others |", "|---|---|---|---|---|"]
    return [*head, *lines, table_row("**all**", sums)], enough


def reasons(chosen: Sequence[tuple[Module, list[Mutant]]]) -> list[str]:
    """Rows of Markdown of the mutants of a sample that compute the same."""
    same = equivalent()
    return [
        "| file, function | | becomes | why it is the same |",
        "|---|---|---|---|",
        *(
            f"| {m.file.removeprefix('sbi_models/')}, {m.function or '-'} | {code(m.original)} "
            f"| {code(m.mutated)} | {same[m.name]} |"
            for _, mutants in chosen
            for m in mutants
            if m.name in same
        ),
    ]


def main() -> None:
    """Judge a sample of mutants and print the table; status 1 if too few are killed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--number", type=int, default=330, help="mutants of all modules, those by FLOOR aside"
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--module", default="", help="pattern of the names of modules")
    parser.add_argument("--only-survivors", action="store_true", help="judge again those that survived")
    parser.add_argument("--table", action="store_true", help="print what is known, and judge none")
    parser.add_argument("--page", action="store_true", help="write the tables of docs/mutants.md, too")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))
    WORK.mkdir(parents=True, exist_ok=True)
    records = Records(WORK / "results.jsonl")
    chosen = list(shares(modules(PROJECT)[0], PROJECT, options.number, options.seed))
    chosen = [(module, mutants) for module, mutants in chosen if re.search(options.module, module.name)]
    unsound = [] if options.table else run(chosen, options, records)
    rows, enough = table(chosen, records)
    print("\n".join([*rows, "", *reasons(chosen), ""]))
    if options.page:
        write_page(PROJECT / "docs" / "mutants.md", {"table": rows, "reasons": reasons(chosen)})
    for module, mutants in chosen:
        for mutant in mutants:
            result = records.get(mutant)
            if mutant.name not in equivalent() and (result is None or result["word"] == "passed"):
                print(f"{module.name}: {mutant.file}:{mutant.line} {mutant.original} -> {mutant.mutated}")
    if unsound:
        print("Tests that fail without an edit, too:", *unsound, sep="\n")
        sys.exit(2)
    sys.exit(0 if enough else 1)


if __name__ == "__main__":
    main()
