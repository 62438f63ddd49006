"""Experiments from YAML files: those of the package by name, a user's by path."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from sbi_models.errors import ConfigurationError, SbiModelsError, suggest
from sbi_models.pipeline.experiment.settings import Experiment

FOLDER = Path(__file__).parents[1] / "studies"
SUFFIXES = (".yaml", ".yml")

_EXPONENT = re.compile(r"[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)[eE][-+]?[0-9]+\Z")
"""Numbers such as 1e-4, which YAML 1.1 takes for text, unlike YAML 1.2, JSON and Python."""


class _Loader(yaml.SafeLoader):
    """Safe loader that refuses a key twice: YAML would keep the second alone."""

    def compose_mapping_node(self, anchor: Any) -> Any:
        node = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:
            if (key.tag, repr(key.value)) in seen:
                raise yaml.MarkedYAMLError(
                    problem=f"expected each key once, got {key.value!r} again", problem_mark=key.start_mark
                )
            seen.add((key.tag, repr(key.value)))
        return node


class _Dumper(yaml.SafeDumper):
    """Safe dumper that quotes text that the loader would take for a number, and escapes all line breaks."""

    def represent_str(self, data: str) -> Any:
        style = '"' if set(data) & {"\x85", "\u2028", "\u2029"} else None
        return self.represent_scalar("tag:yaml.org,2002:str", data, style)


_Dumper.add_representer(str, _Dumper.represent_str)
for _kind in (_Loader, _Dumper):
    _kind.add_implicit_resolver("tag:yaml.org,2002:float", _EXPONENT, list("-+.0123456789"))


def experiment_names() -> list[str]:
    """The names of the experiments of the package."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def is_experiment(source: str | Path) -> bool:
    """Whether something is the name of an experiment, or can be its file."""
    return str(source) in experiment_names() or Path(source).suffix in SUFFIXES


def load_experiment(source: str | Path) -> Experiment:
    """The experiment of a name, or of a YAML file.

    Its modules and files are looked for in the folder of the file.

    Raises:
        ConfigurationError: no such experiment or file, not YAML, or unknown or impossible settings;
            the message is one line, with the line of the file and the key.
    """
    if str(source) in experiment_names():
        return read_experiment(FOLDER / f"{source}.yaml")
    path = Path(source)
    if is_experiment(path):
        experiment = read_experiment(path)
        return experiment.model_copy(update={"folder": str((path.parent / experiment.folder).resolve())})
    raise ConfigurationError(
        f"Unknown experiment {str(source)!r}. {suggest(str(source), experiment_names())} Or name a "
        "file ending in .yaml."
    )


def read_experiment(path: Path) -> Experiment:
    """The settings in a YAML file, as they are; errors as for `load_experiment`."""
    try:
        text = path.read_text(encoding="utf-8")
        node, content = yaml.compose(text, _Loader), yaml.load(text, _Loader)  # noqa: S506 - a safe one
    except FileNotFoundError:
        raise ConfigurationError(
            f"{path}: no such file. Expected the settings of an experiment in YAML."
        ) from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigurationError(f"{path}: not readable as YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise ConfigurationError(f"{path}: expected settings as 'key: value', got {type(content).__name__}.")
    try:
        return Experiment.model_validate(content)
    except ValidationError as error:
        raise ConfigurationError(
            "; ".join(_message(path, node, content, detail) for detail in error.errors())
        ) from None
    except SbiModelsError as error:
        raise ConfigurationError(f"{path}: {error}") from None


def as_yaml(experiment: Experiment) -> str:
    """The settings that differ from the defaults, as YAML that `load_experiment` reads.

    The folder is left out.
    """
    settings = experiment.model_dump(mode="json", exclude_defaults=True, exclude={"folder"})
    return str(yaml.dump(settings, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120))


def _message(path: Path, node: Any, content: Mapping[str, Any], error: Any) -> str:
    """One error of pydantic, with file, line and key."""
    location = [part for part in error["loc"] if _is_in(content, part, error["loc"])]
    key = ".".join(map(str, location))
    line = _line(node, location)
    got = error["input"]
    shown = (
        f", got {got!r:.80}"
        if error["type"] not in ("missing", "extra_forbidden") and not isinstance(got, Mapping)
        else ""
    )
    if error["type"] == "extra_forbidden":
        message = f"unknown key. {suggest(str(location[-1]), _keys(location[:-1]))}"
    elif error["type"] == "missing":
        key = ".".join(map(str, error["loc"]))
        message = "this key is required"
    else:
        message = str(error["msg"]).removeprefix("Value error, ") + shown
    return f"{path}, line {line}, {key or 'settings'}: {message}"


def _is_in(content: Any, part: Any, location: tuple[Any, ...]) -> bool:
    """Whether a part of a location is a key or an index of the file.

    Pydantic also names the alternatives of a union.
    """
    for step in location:
        known: Any = (
            content
            if isinstance(content, Mapping)
            else range(len(content))
            if isinstance(content, list)
            else ()
        )
        if step in known:
            if step == part:
                return True
            content = content[step]
    return False


def _line(node: Any, location: list[Any]) -> int:
    """The line of the file, from 1, where the key of a location stands."""
    line = int(node.start_mark.line) + 1
    for step in location:
        if isinstance(node, yaml.MappingNode):
            pairs = {key.value: (key, value) for key, value in node.value}
            if str(step) not in pairs:
                break
            key, node = pairs[str(step)]
            line = int(key.start_mark.line) + 1
        elif isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
            node = node.value[step]
            line = int(node.start_mark.line) + 1
    return line


def _keys(location: list[Any]) -> list[str]:
    """The keys that there are at a location of the settings."""
    model: Any = Experiment
    for step in location:
        field = model.model_fields.get({"narrow": "sequential"}.get(step, step))
        kinds = [] if field is None else _parts(field.annotation)
        model = next(
            (kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)), model
        )
    return list(model.model_fields)


def _parts(annotation: Any) -> list[Any]:
    """A type, and those inside it."""
    inner = [part for argument in getattr(annotation, "__args__", ()) for part in _parts(argument)]
    return [annotation, *inner]
