"""A new experiment: a simulator, its settings, and made-up observations, which run as they are."""

import keyword
from importlib.util import find_spec
from pathlib import Path
from string import Template

from sbi_models.errors import ConfigurationError
from sbi_models.pipeline.experiment.yaml_files import experiment_names

TEMPLATES = Path(__file__).with_name("templates")

OBSERVATIONS = """\
0.95,0.88,0.71,0.56,0.49,0.34,0.36,0.27,0.17,0.20,0.11,0.13
1.62,0.97,0.71,0.46,0.29,0.09,0.12,0.08,0.04,0.02,-0.06,0.03
"""
"""Two data sets that the model of the template can have made."""


def make_experiment(name: str, folder: Path) -> list[Path]:
    """Write NAME.py, NAME.yaml and NAME.csv to a folder, which is made if it is not there; the files.

    Raises:
        ConfigurationError: if the name is none for a module, is taken, or one of the files is there already.
    """
    if not name.isidentifier() or keyword.iskeyword(name):
        raise ConfigurationError(
            "Expected a name of letters, digits and underscores that does not start with a digit, as of a "
            f"Python module, got {name!r}. {_suggested(name)}"
        )
    if name in experiment_names():
        raise ConfigurationError(
            f"Expected a new name, got {name!r}, which is an experiment of the package. For "
            f"instance my_{name}."
        )
    files = {suffix: folder / f"{name}.{suffix}" for suffix in ("py", "yaml", "csv")}
    for path in files.values():
        if path.exists():
            raise ConfigurationError(
                f"Expected files that are not there yet, got {path}. Choose another name, or "
                "another --folder."
            )
    if _is_module(name):
        raise ConfigurationError(
            f"Expected a name of no installed module, got {name!r}, which Python would import. For "
            f"instance my_{name}."
        )
    texts = {
        suffix: Template((TEMPLATES / f"new.{suffix}.txt").read_text(encoding="utf-8")).substitute(name=name)
        for suffix in ("py", "yaml")
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for suffix, text in {**texts, "csv": OBSERVATIONS}.items():
            with files[suffix].open("x", encoding="utf-8") as file:
                file.write(text)
    except OSError as error:
        raise ConfigurationError(
            f"Expected a folder that can be written to, got {folder}: {error.strerror}. Choose "
            "another --folder."
        ) from None
    return list(files.values())


def _suggested(name: str) -> str:
    """A name that would do, made of one that does not."""
    plain = "".join(c if c.isalnum() or c == "_" else "_" for c in name).strip("_")
    for candidate in (plain, f"my_{plain}"):
        if plain and candidate.isidentifier() and not keyword.iskeyword(candidate):
            return f"For instance {candidate}."
    return "For instance decay."


def _is_module(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except (ImportError, ValueError):
        return True
