"""Sphinx extension: reference pages generated from code.

The commands come from the command line's own definition, the settings of experiments from their models. A
page says where, by a comment: `<!-- commands -->` or `<!-- settings -->`.
"""

import ast
import inspect
import re
import textwrap
from collections.abc import Iterable, Iterator
from enum import Enum
from typing import Any, Literal

import typer
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

OUTSIDE = {"../benchmarks/RESULTS.md": "results.md", "../README.md": "index.md"}
"""Files outside of the pages that links lead to on a Git host, and the pages in their place here."""


def commands() -> str:
    """Every command of `sbi-models`: usage, what it does, arguments and options, in Markdown."""
    from sbi_models.cli.main import app  # noqa: PLC0415 - Sphinx loads this module before it knows whether a page asks for it

    group = typer.main.get_command(app)
    with typer.main.get_command(app).make_context("sbi-models", [], resilient_parsing=True) as parent:
        return "\n\n".join(_command(name, group.commands[name], parent) for name in sorted(group.commands))  # type: ignore[attr-defined]


def _command(name: str, command: Any, parent: Any) -> str:
    context = type(parent)(command, info_name=name, parent=parent)
    usage = _plain(" ".join(["sbi-models", name, *command.collect_usage_pieces(context)]))
    text = inspect.cleandoc(command.help or "")
    examples = re.findall(r"^Example: (.*)$", text, flags=re.MULTILINE)
    said = re.sub(r"^Example: .*\n?", "", text, flags=re.MULTILINE).strip()
    parts = [f"## sbi-models {name}", said, f"```\n{usage}\n```"]
    if rows := [_parameter(parameter, context) for parameter in command.params if parameter.name != "help"]:
        parts.append("| argument | meaning | default |\n|---|---|---|\n" + "\n".join(rows))
    if examples:
        parts.append("For example:\n\n```\n" + "\n".join(examples) + "\n```")
    return "\n\n".join(parts)


def _plain(usage: str) -> str:
    """Names of arguments in capitals, as in the texts, in place of braces."""
    return re.sub(r"\{(\w+)\}|(?<=\[)([a-z_]+)(?=\])", lambda found: (found[1] or found[2]).upper(), usage)


def _parameter(parameter: Any, context: Any) -> str:
    if parameter.param_type_name == "argument":
        name = f"`{_plain(' '.join(parameter.get_usage_pieces(context))).strip('[]')}`"
    else:
        name = ", ".join(f"`{option}`" for option in (*parameter.opts, *parameter.secondary_opts))
    default = parameter.default
    if parameter.required:
        shown = "required"
    elif default is None or default is inspect.Parameter.empty:
        shown = ""
    else:
        shown = f"`{default.value if isinstance(default, Enum) else default}`"
    return f"| {name} | {_cell(parameter.help or '')} | {shown} |"


def settings() -> str:
    """Every setting of an experiment, model by model, in Markdown."""
    from sbi_models.pipeline.experiment.settings import Experiment  # noqa: PLC0415 - as for commands

    return "\n\n".join(_model(model, path) for model, path in _models(Experiment, ""))


def _models(model: type[BaseModel], path: str) -> Iterator[tuple[type[BaseModel], str]]:
    """A model and those inside it, each once, with the key where it stands."""
    pending, seen = [(model, path)], set()
    while pending:
        model, path = pending.pop(0)
        if model in seen:
            continue
        seen.add(model)
        yield model, path
        for name, field in model.model_fields.items():
            inside = [
                kind
                for kind in _parts(field.annotation)
                if isinstance(kind, type) and issubclass(kind, BaseModel)
            ]
            pending.extend((kind, f"{path}.{name}" if path else name) for kind in inside)


def _parts(annotation: Any) -> list[Any]:
    return [
        annotation,
        *(part for argument in getattr(annotation, "__args__", ()) for part in _parts(argument)),
    ]


def _model(model: type[BaseModel], path: str) -> str:
    title = f"(settings-{model.__name__.lower()})=\n\n## {path or 'The experiment'}"
    comments = _comments(model)
    hints = inspect.get_annotations(model)
    rows = []
    for name, field in model.model_fields.items():
        if "not to be given" in comments.get(name, ""):
            continue
        required = field.default is PydanticUndefined and field.default_factory is None
        rows.append(
            f"| `{name}` | {_cell(_kind(hints[name], field))} | {_default(field, required)} | "
            f"{_cell(comments.get(name, ''))} |"
        )
    said = inspect.cleandoc(model.__doc__ or "")
    return "\n\n".join(
        [title, said, "| key | value | default | meaning |\n|---|---|---|---|\n" + "\n".join(rows)]
    )


def _default(field: Any, required: bool) -> str:
    if required:
        return "required"
    value = field.default_factory() if field.default_factory is not None else field.default
    if isinstance(value, BaseModel):
        given = value.model_dump(exclude_unset=True)
        return f"`{given}`" if given else "its own"
    return "none" if value is None else f"`{value}`" if value not in ("", [], {}) else "empty"


_NAMES = {str: "text", int: "whole number", float: "number", bool: "true or false"}
_SIGNS = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}


def _kind(annotation: Any, field: Any) -> str:
    """What a value may be, in words."""
    said, limits = _words(annotation), _limits(field.metadata)
    return said if set("<>≤≥") & set(said) else f"{said}{limits}"


def _words(annotation: Any) -> str:
    origin, arguments = getattr(annotation, "__origin__", None), getattr(annotation, "__args__", ())
    said = str(annotation)
    if annotation in _NAMES:
        said = _NAMES[annotation]
    elif isinstance(annotation, type) and issubclass(annotation, BaseModel):
        said = f"[{annotation.__name__}](#settings-{annotation.__name__.lower()})"
    elif hasattr(annotation, "__metadata__"):
        said = f"{_words(origin)}{_limits(annotation.__metadata__)}"
    elif origin is Literal:
        said = " or ".join(f"`{value}`" for value in arguments)
    elif origin is list:
        said = f"list of {_words(arguments[0])}"
    elif origin is dict:
        said = "values by name" if arguments[1] is Any else f"{_words(arguments[1])} by name"
    elif arguments:
        said = " or ".join(_words(part) for part in arguments if part is not type(None))
    return said


def _limits(metadata: Iterable[Any]) -> str:
    """Bounds of a number, as pydantic and its types note them."""
    parts = [part for item in metadata for part in (item, *getattr(item, "metadata", ()))]
    found = [
        f"{sign} {getattr(part, key)}"
        for part in parts
        for key, sign in _SIGNS.items()
        if getattr(part, key, None) is not None
    ]
    return f" {', '.join(found)}" if found else ""


def _comments(model: type[BaseModel]) -> dict[str, str]:
    """The strings that stand below the fields of a model."""
    body = ast.parse(textwrap.dedent(inspect.getsource(model))).body[0]
    found = {}
    for field, after in zip(body.body, body.body[1:], strict=False):  # type: ignore[attr-defined]
        is_text = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and is_text:
            found[field.target.id] = inspect.cleandoc(after.value.value)  # type: ignore[attr-defined]
    return found


def _cell(text: str) -> str:
    """Text in a cell of a table: one line, no bars."""
    return " ".join(text.split()).replace("|", "\\|")


def _fill(app: Any, name: str, source: list[str]) -> None:
    """Sphinx hook for every page that it reads."""
    del app
    for marker, made in (("<!-- commands -->", commands), ("<!-- settings -->", settings)):
        if marker in source[0]:
            source[0] = source[0].replace(marker, made())
    for target, page in OUTSIDE.items():
        source[0] = source[0].replace(f"]({target})", f"]({page})")


def _as_written(*given: Any) -> None:
    """Escape bars and stars of plain-text docstrings, as in |det J| or n * d."""
    lines: list[str] = given[-1]
    for i, line in enumerate(lines):
        if not line.lstrip().startswith((">>>", "...", "* ")):
            between = line.split("`")
            between[::2] = [re.sub(r"(?<!\\)([*|])", r"\\\1", text) for text in between[::2]]
            lines[i] = "`".join(between)


def setup(app: Any) -> dict[str, bool]:
    """Sphinx entry point."""
    app.connect("source-read", _fill)
    app.connect(
        "autodoc-process-docstring", _as_written, priority=400
    )  # before napoleon, which makes stars of its own
    return {"parallel_read_safe": True, "parallel_write_safe": True}
