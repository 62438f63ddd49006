"""The pages of the documentation, and the blocks of code in them."""

import re
from pathlib import Path
from typing import NamedTuple

DOCS = Path(__file__).parents[2] / "docs"

PAGES = sorted(path for path in DOCS.rglob("*.md") if "_build" not in path.parts)


class Block(NamedTuple):
    """A block of code: the file that the sentence above it names at its end, if any, the language, and the
    code."""

    file: str | None
    language: str
    code: str


def blocks(page: str) -> list[Block]:
    """Those of a page, in order."""
    found = re.findall(
        r"(?:`([\w.-]+)`(?:[^`\n]|\n(?!\n))*:\n\n)?```(\w+)\n(.*?)```",
        (DOCS / page).read_text(encoding="utf-8"),
        flags=re.DOTALL,
    )
    return [Block(file or None, language, code) for file, language, code in found]
