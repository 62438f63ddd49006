"""The pages hang together, and name what there is."""

import re
import tomllib
from importlib import import_module
from inspect import getdoc, ismodule
from pathlib import Path

import pytest
from pages import DOCS, PAGES, blocks

ROOT = DOCS.parent
PUBLIC = [
    *("", "adapters", "approximators", "datasets", "diagnostics", "networks"),
    *("simulators", "simulators.benchmarks", "tracking", "workflows"),
]


def _module(name: str):
    return import_module(f"sbi_models.{name}".rstrip("."))


def test_every_page_is_in_a_table_of_contents() -> None:
    """No page is out of reach of a reader who starts at the index."""
    listed = set()
    for page in PAGES:
        for entries in re.findall(
            r"```{toctree}\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL
        ):
            names = [line for line in entries.splitlines() if line and not line.startswith(":")]
            listed |= {(page.parent / f"{name}.md").resolve() for name in names}
    assert listed == {page for page in PAGES if page != DOCS / "index.md"}


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(DOCS)))
def test_links_between_files_resolve(page: Path) -> None:
    """A link to a file, with or without a heading, has a target on a Git host and on disk."""
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith(("http://", "https://")):
            continue
        name, _, heading = target.partition("#")
        file = page.parent / name if name else page
        assert file.is_file(), f"{page.name} links to {target}"
        if heading:
            headings = re.findall(r"^#+ (.*)$", file.read_text(encoding="utf-8"), flags=re.MULTILINE)
            assert heading in {
                re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in headings
            }, f"{page.name}: {target}"


def test_the_reference_names_everything_public() -> None:
    """Whatever `__all__` of a public package lists is on a page of the reference."""
    text = "\n".join(page.read_text(encoding="utf-8") for page in (DOCS / "reference").glob("*.md"))
    named = set(re.findall(r"sbi_models(?:\.\w+)*\.(\w+)", text))
    for package in PUBLIC:
        module = _module(package)
        assert {name for name in module.__all__ if not ismodule(getattr(module, name))} <= named, package


@pytest.mark.parametrize("package", PUBLIC)
def test_everything_public_has_a_docstring(package: str) -> None:
    """Classes and functions that are public, and the public methods of these classes that the project wrote,
    say what they are for."""
    module = _module(package)
    missing = []
    for name in module.__all__:
        thing = getattr(module, name)
        if isinstance(thing, type):
            missing += [name] * (not thing.__dict__.get("__doc__"))
            owners = {attribute: owner for owner in reversed(thing.__mro__) for attribute in owner.__dict__}
            ours = [
                attribute
                for attribute, owner in owners.items()
                if owner.__module__.startswith("sbi_models") and attribute[0] != "_"
            ]
            values = {attribute: owners[attribute].__dict__[attribute] for attribute in ours}
            methods = [
                a
                for a, value in values.items()
                if isinstance(value, property | classmethod | staticmethod) or callable(value)
            ]
            missing += [
                f"{name}.{a}"
                for a in methods
                if not (getattr(values[a], "__doc__", None) or getdoc(getattr(thing, a, None)))
            ]
        elif callable(thing) and getattr(thing, "__module__", "").startswith("sbi_models"):
            missing += [name] * (not getdoc(thing))
    assert not missing


def test_names_of_the_migration_tables_exist() -> None:
    """Every `bf.` name in the column of sbi_models, and every option named there, is one that the package
    has."""
    text = (DOCS / "migration.md").read_text(encoding="utf-8")
    columns = [
        line.split("|")[2] for line in text.splitlines() if line.startswith("| ") and line.count("|") == 4
    ]
    names = {name for column in columns for name in re.findall(r"bf\.([A-Za-z_.0-9]+)", column)}
    assert len(names) > 8
    for name in names:
        thing = _module("")
        for part in name.split("."):
            thing = getattr(thing, part)
    plots = {name for column in columns for name in re.findall(r"\b(plot_\w+)", column)}
    own = set(_module("diagnostics").__all__) | set(dir(_module("workflows").BasicWorkflow))
    assert plots
    assert plots <= own
    methods = {name for column in columns for name in re.findall(r"workflow\.(\w+)\(", column)}
    workflows = _module("workflows")
    assert methods <= {*dir(workflows.BasicWorkflow), *dir(workflows.LikelihoodWorkflow)}


@pytest.mark.parametrize("number", [0, 1])
def test_the_code_of_the_migration_page_runs(number: int, capsys: pytest.CaptureFixture[str]) -> None:
    """Both blocks of sbi_models run without a warning, and print what their comments say."""
    code = [block.code for block in blocks("migration.md") if block.language == "python"][number]
    exec(code, {})
    *_, last = code.strip().splitlines()
    assert capsys.readouterr().out.strip().splitlines()[-1] == last.split("  # ")[1]


def test_documentation_packages_are_pinned() -> None:
    """What `make docs` needs is in the extra `docs`, in `dev`, and has an exact version in
    constraints.txt."""
    extras = tomllib.loads((DOCS.parent / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    pins = (DOCS.parent / "constraints.txt").read_text().lower()
    assert any("docs" in needed for needed in extras["dev"])
    for needed in extras["docs"]:
        assert f"\n{re.split('[<>=]', needed)[0]}==" in pins


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "examples/README.md"])
def test_what_pages_outside_of_docs_point_at_is_there(page: str) -> None:
    """Their links lead to files."""
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", (ROOT / page).read_text(encoding="utf-8")):
        assert "://" in target or (ROOT / page).parent.joinpath(target).exists(), f"{page}: {target}"


def test_targets_of_make_that_pages_name_exist() -> None:
    """`make TARGET` on any page is in the Makefile."""
    targets = set(
        re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE)
    )
    for page in (*PAGES, ROOT / "README.md", ROOT / "CONTRIBUTING.md"):
        named = re.findall(r"(?:^|`)make ([a-z-]+)", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
        assert set(named) <= targets, page.name
