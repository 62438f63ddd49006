"""Tables of docs/mutants.md."""

from pathlib import Path


def write_page(page: Path, parts: dict[str, list[str]]) -> None:
    """Replace parts of a page that stand between comments of their names."""
    text = page.read_text(encoding="utf-8")
    for name, lines in parts.items():
        start, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->"
        before, rest = text.split(start)
        text = "\n".join([f"{before}{start}", *lines, "", f"{end}{rest.split(end)[1]}"])
    page.write_text(text, encoding="utf-8")


def code(text: str) -> str:
    """Code in a cell of Markdown."""
    return f"`{text}`".replace("|", r"\|")


def table_row(name: str, counts: list[int]) -> str:
    """Row of Markdown of a module: mutants, those that compute the same, killed ones, and their share."""
    mutants, same, killed = counts
    share = f"{100 * killed / (mutants - same):.0f} %" if mutants > same else "-"
    return f"| {name} | {mutants} | {same} | {killed} | {share} |"
