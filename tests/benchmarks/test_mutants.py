"""`make mutants`: the edits that it makes, the tests that it asks, and when it says that one is killed."""

import ast
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from textwrap import dedent

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import mutants as tool
from mutant_files import mutants_of
from mutant_tests import CALLS

PROJECT = Path(__file__).parents[2]
BENCHMARKS = PROJECT / "benchmarks"


def edits(source, **options):
    """(kind, mutated lines) of a source."""
    return {(m.kind, m.mutated) for m in mutants_of("a.py", dedent(source).encode(), **options)}


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("y = a < b", {("boundary", "y = a <= b"), ("negation", "y = a >= b")}),
        ("y = a + b", {("arithmetic", "y = a - b")}),
        ("y = (a + b) * c", {("arithmetic", "y = (a - b) * c"), ("arithmetic", "y = (a + b) / c")}),
        ("y = -x", {("sign", "y = x")}),
        ("y = a and b", {("boolean", "y = a or b")}),
        ("y = not a", {("not", "y = a")}),
        ("y = 3", {("constant", "y = 4"), ("constant", "y = 6")}),
        ("y = 0", {("constant", "y = 1")}),
        ("y = True", {("constant", "y = False")}),
        (
            "y = x.mean(-1)",
            {("axis", "y = x.mean(0)"), ("swap", "y = x.sum(-1)")}
            | {("constant", f"y = x.mean({axis})") for axis in ("-0", "-2")},
        ),
        ("y = sqrt(x)", {("unwrap", "y = (x)")}),
        ("y = x.cumsum(d)", {("unwrap", "y = (x)")}),
        ("y = a.mT @ b", {("unwrap", "y = a @ b")}),
        ("y = f(x, dim=d)", {("keyword", "y = f(x)")}),
        ("y = f(dim=d, k=k)", {("keyword", "y = f(k=k)")}),
        (
            "y = x[a:b]",
            {("slice", f"y = x[{part}]") for part in ("a + 1:b", "a - 1:b", "a:b + 1", "a:b - 1")},
        ),
        ("y += x", {("statement", "pass")}),
        ("act(x)", {("statement", "pass")}),
        (
            "y = a if b else c",
            {("condition", "y = a if True else c"), ("condition", "y = a if False else c")},
        ),
        ("def f(a, b=True): pass", {("default", "def f(a, b=False): pass")}),
        ("é = {'ü': a < b}", {("boundary", "é = {'ü': a <= b}"), ("negation", "é = {'ü': a >= b}")}),
    ],
)
def test_edits_of_an_operator(source, expected):
    """Each operator makes the edits that are listed, at the right bytes, and no others."""
    assert edits(source) == expected


@pytest.mark.parametrize(
    "source",
    [
        '"""Text, 1 < 2."""',
        "raise ValueError(f'{1 + 2}')",
        "warnings.warn('x', stacklevel=2)",
        "assert 1 < 2",
        "__all__ = ['a']",
        "import a",
        "x: list[1]",
        "def __repr__(self): return 1 + 2",
        "f'{1 + 2}'",
    ],
)
def test_texts_for_readers_are_left_alone(source):
    """Nothing is edited in docstrings, messages, annotations, names and what is raised."""
    assert edits(source) == set()


def test_parts_of_what_is_hashed_are_left_out_one_at_a_time():
    """Elements of a list, arguments of a key, and values of an encoded text."""
    source = """
    def key(a, b):
        return content_key("name", [a, b], f"{a} {b}".encode())
    """
    parts = {text for kind, text in edits(source, parts=True) if kind == "part"}
    assert parts == {
        'return content_key("name", [b], f"{a} {b}".encode())',
        'return content_key("name", [a], f"{a} {b}".encode())',
        'return content_key("name", f"{a} {b}".encode())',
        'return content_key("name", [a, b])',
        'return content_key("name", [a, b], f" {b}".encode())',
        'return content_key("name", [a, b], f"{a} ".encode())',
    }


def test_samples_are_reproducible_and_grow():
    """The same seed draws the same mutants, more of them begin with the same, and all of them compile."""
    row = next(row for row in tool.modules(PROJECT)[0] if row.name == "spline")
    found = tool.candidates(row, PROJECT)
    few, many = (tool.sample(found, number, "1", PROJECT) for number in (12, 40))
    assert many[:12] == few == tool.sample(found, 12, "1", PROJECT)
    assert few != tool.sample(found, 12, "2", PROJECT)
    assert len({mutant.line for mutant in few}) > 8
    assert len({mutant.kind for mutant in many}) > 5
    for mutant in many:
        source = (PROJECT / mutant.file).read_bytes()
        assert ast.dump(ast.parse(mutant.apply(source))) != ast.dump(ast.parse(source))


def test_a_mutant_is_judged_by_the_tests_that_execute_its_statement_fastest_first():
    """Slow tests beyond the budget are left out, tests with a set-up come last, and a statement that nobody
    executes is left to all tests of its file."""
    (mutant,) = mutants_of("a.py", b"\n\ny = not a\n")
    tests = {
        "t.py::other": {"seconds": 0.01, "shared": 0.0, "lines": {"a.py": [1]}},
        "t.py::slow": {"seconds": 5.0, "shared": 0.0, "lines": {"a.py": [1, 3]}},
        "t.py::prepared": {"seconds": 0.1, "shared": 2.0, "lines": {"a.py": [3]}},
        "t.py::fast": {"seconds": 0.2, "shared": 0.0, "lines": {"a.py": [3]}},
        "t.py::endless": {"seconds": tool.BUDGET, "shared": 0.0, "lines": {"a.py": [3]}},
        "t.py::elsewhere": {"seconds": 0.1, "shared": 0.0, "lines": {"b.py": [3]}},
    }
    assert tool.judges(mutant, tests)[0] == ["t.py::fast", "t.py::slow", "t.py::prepared"]
    del tests["t.py::slow"], tests["t.py::fast"], tests["t.py::prepared"], tests["t.py::endless"]
    assert tool.judges(mutant, tests)[0] == ["t.py::other"]


MODULE = """
from functools import cache

def double(x):
    return 2 * x

def often(x):
    while x > 0:
        x -= 1
    return x

@cache
def once():
    return 7
"""
TESTS = """
import subprocess, sys, time
from pathlib import Path
import pytest
from sbi_models.module import double, often, once

@pytest.fixture(scope="module")
def doubled():
    return double(4)

@pytest.mark.xdist_group("together")
def test_first(doubled):
    assert once() == 7

def test_second(doubled):
    assert doubled == 8 and once() == 7

def test_elsewhere():
    code = "import sbi_models.module as m; print(m.often(3))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).stdout == b"0\\n"

def test_often():
    assert often(2) == 0

def test_slow():
    started = time.process_time()
    while time.process_time() - started < 0.6:
        once()
    Path("ended").touch()
"""
SCRIPT = """
import json, sys
from pathlib import Path
import mutant_tests as m

project, output = map(Path, sys.argv[1:])
results = {}
with m.copied(project) as root:
    file = root / "sbi_models" / "module.py"
    failed = m.in_fork(root, lambda: m.observe(["tests"], root, output, 0.5), 60)
    results["observed"] = [failed.word, json.loads(output.read_text()), (root / "ended").exists()]
    for name, old, new, tests in json.loads(sys.stdin.read()):
        original = file.read_text()
        file.write_text(original.replace(old, new))
        ended = m.in_fork(root, lambda: m.first_failure([f"tests/test_it.py::{t}" for t in tests], 1), 60)
        file.write_text(original)
        results[name] = [ended.word, ended.detail]
print(json.dumps(results))
"""


def test_edits_are_seen_by_tests_and_by_the_processes_that_they_start(tmp_path):
    """A failure has the name of its test, here and in a process that a test starts; an endless loop is ended;
    lines that a shared fixture or a cached function executes count for all tests that use it; a slow test is
    not asked, but comes to its end."""
    project = tmp_path / "project"
    files = {"sbi_models/__init__.py": "", "sbi_models/module.py": MODULE, "tests/test_it.py": TESTS}
    files["pytest.ini"] = "[pytest]\naddopts = --strict-markers\n"
    for name, text in files.items():
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).write_text(text)
    subprocess.run(["git", "init", "--quiet"], cwd=project, check=True)
    cases = [
        ("unedited", "2 * x", "2 * x", ["test_first", "test_second", "test_elsewhere"]),
        ("edited", "2 * x", "3 * x", ["test_first", "test_second"]),
        ("unseen", "2 * x", "3 * x", ["test_first"]),
        ("elsewhere", "return x", "return x + 1", ["test_elsewhere"]),
        ("endless", "x -= 1", "pass", ["test_often"]),
    ]
    ended = subprocess.run(
        [sys.executable, "-c", SCRIPT, project, tmp_path / "lines.json"],
        input=json.dumps(cases),
        capture_output=True,
        text=True,
        cwd=BENCHMARKS,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    results = json.loads(ended.stdout)
    word, observed, ended_slowly = results.pop("observed")
    assert word == "passed"
    assert ended_slowly
    assert not [name for name in observed if "slow" in name]
    lines = {
        name.split("::")[1]: test["lines"].get("sbi_models/module.py") for name, test in observed.items()
    }
    number = {text: MODULE.splitlines().index(text) + 1 for text in ("    return 2 * x", "    return 7")}
    assert lines["test_first"] == lines["test_second"] == sorted(number.values())
    assert lines["test_elsewhere"] is None
    assert Counter(word for word, _ in results.values()) == {"passed": 2, "failed": 3}
    assert results["unedited"] == results["unseen"] == ["passed", ""]
    assert results["edited"][1].startswith("tests/test_it.py::test_second: ")
    assert results["elsewhere"][1].startswith("tests/test_it.py::test_elsewhere: ")
    assert "Timeout of 1 CPU seconds" in results["endless"][1]
    assert CALLS > 2


def test_modules_have_files_and_tests():
    """Every row of mutants_modules.toml names files and tests that exist, no file twice."""
    rows, imports = tool.modules(PROJECT)
    files = [file for row in rows for file in row.files]
    assert len(files) == len(set(files)) > 100
    for row in rows:
        assert all((PROJECT / name).exists() for name in row.tests)
        assert row.tests[0].startswith(tuple(imports))


def test_equivalent_mutants_are_mutants_of_the_code_as_it_is():
    """Each record names an edit that the tool makes, in code that is still there, and says why."""
    parts = {file for row in tool.modules(PROJECT)[0] if row.parts for file in row.files}
    records = tool.equivalent()
    for file in {name[0] for name in records}:
        made = {m.name for m in mutants_of(file, (PROJECT / file).read_bytes(), parts=file in parts)}
        assert {name for name in records if name[0] == file} <= made
    assert all(len(reason) > 20 for reason in records.values())


def test_too_few_killed_in_one_module_is_not_enough(tmp_path):
    """The table counts survivors among those that are not equivalent, in each module and in all."""
    rows = [tool.Module(name, ("a.py",), ("tests",)) for name in ("good", "bad")]
    found = [mutants_of(f"{row.name}.py", b"\n".join(b"y%d = a + b" % k for k in range(20))) for row in rows]
    records = tool.Records(tmp_path / "results.jsonl")
    for row, mutants in zip(rows, found, strict=True):
        for k, mutant in enumerate(mutants):
            word = "passed" if row.name == "bad" and k < 3 else "failed"
            records.add(row, mutant, tool.Ended(word, "", 0.1), 1)
    lines, enough = tool.table(list(zip(rows, found, strict=True)), tool.Records(records.path))
    assert lines[2:] == [
        "| good | 20 | 0 | 20 | 100 % |",
        "| bad | 20 | 0 | 17 | 85 % |",
        "| **all** | 40 | 0 | 37 | 92 % |",
    ]
    assert not enough
    records.add(rows[1], found[1][0], tool.Ended("timeout", "", 0.1), 1)
    assert tool.table(list(zip(rows, found, strict=True)), records)[1]
