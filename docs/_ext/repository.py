"""Pages from files outside docs/, and examples without the empty lines that doctest needs."""

import re
from pathlib import Path

from catalogue import write

SOURCES = {"contributing": "CONTRIBUTING.md", "changelog": "CHANGELOG.md"}


def convert_link(link):
    """Point a link to a page of the documentation, or remove it if the target is not a page."""
    text, target = link.groups()
    if "://" in target:
        return link[0]
    page = re.fullmatch(r"docs/(.*\.md)", target)
    return f"[{text}](../{page[1]})" if page else f"`{text}`"


def copy(app):
    """Copy the files to docs/generated, with converted links."""
    folder = Path(app.srcdir)
    (folder / "generated").mkdir(exist_ok=True)
    for name, source in SOURCES.items():
        text = (folder.parent / source).read_text(encoding="utf-8")
        text = re.sub(r"\[([^\]]+)\]\(([^)]+)\)", convert_link, text)
        write(folder / "generated" / f"{name}.md", text)


def strip_code_blocks(app, docname, source):
    """Remove the empty line at the end of a code block, which doctest needs."""
    source[0] = source[0].replace("\n\n```\n", "\n```\n")


def setup(app):
    app.connect("builder-inited", copy)
    app.connect("source-read", strip_code_blocks)
    return {"parallel_read_safe": True}
