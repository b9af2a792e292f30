"""The docs name files and links that are there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FILES = ["/" + str(path.relative_to(ROOT)) for top in ("src", "tests", "docs") for path in (ROOT / top).rglob("*.*")]
SOURCE = re.compile(r"`([\w/]+/[\w]+\.(?:py|cpp|h))`")
FOLDER = re.compile(r"`([\w]+/[\w/]*)/`|`([\w]+)/`")
LINK = re.compile(r"\]\(([\w/.-]*)(?:#([\w-]+))?\)")


def anchors(text: str) -> set[str]:
    """Of the headings, as they are made from them by the sites that show Markdown."""
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("path", DOCS, ids=lambda path: path.name)
def test_files_that_are_named_exist(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    missing = [name for name in SOURCE.findall(text) if not any(file.endswith("/" + name) for file in FILES)]
    folders = [name or short for name, short in FOLDER.findall(text)]
    missing += [name for name in folders if not any(f"/{name}/" in file for file in FILES)]
    assert not missing


@pytest.mark.parametrize("path", DOCS, ids=lambda path: path.name)
def test_links_lead_somewhere(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    for name, anchor in LINK.findall(text):
        target = path.parent / name if name else path
        assert target.exists(), name
        assert not anchor or anchor in anchors(target.read_text(encoding="utf-8")), f"{name}#{anchor}"
