"""Pages from files outside docs/, and examples without the empty lines that doctest needs."""

import re
from pathlib import Path

from catalogue import write

DOCS = Path(__file__).resolve().parent.parent
SOURCES = {"contributing": "CONTRIBUTING.md", "changelog": "CHANGELOG.md"}


def convert_link(link):
    """Point a link to a page of the documentation, or remove it if the target is not a page."""
    text, target = link.groups()
    if "://" in target:
        return link[0]
    page = re.fullmatch(r"docs/(.*\.md)(#.*)?", target)
    return f"[{text}](../{page[1]}{page[2] or ''})" if page else f"`{text}`"


def copy(app):
    """Copy the files to docs/generated, with converted links."""
    folder = Path(app.srcdir)
    (folder / "generated").mkdir(exist_ok=True)
    for name, source in SOURCES.items():
        text = (folder.parent / source).read_text(encoding="utf-8")
        text = re.sub(r"\[([^\]]+)\]\(([^)]+)\)", convert_link, text)
        write(folder / "generated" / f"{name}.md", text)


def prepare(app, docname, source):
    """Remove the empty line at the end of a code block, which doctest needs, and links to files.

    Links to files of the repository outside docs/ are links for those who read it there.
    """
    text = source[0].replace("\n\n```\n", "\n```\n")
    source[0] = re.sub(
        r"\[([^\]]+)\]\((?:\.\./)+(?!docs/)([\w./-]*\.(?:md|py)[^)]*)\)", outside, text
    )


def outside(link):
    """The text of a link, if its target is not in docs/."""
    text, target = link.groups()
    is_page = (DOCS / target.partition("#")[0]).exists() or (
        DOCS / "guides" / target.partition("#")[0]
    ).exists()
    return link[0] if is_page else text


def setup(app):
    app.connect("builder-inited", copy)
    app.connect("source-read", prepare)
    return {"parallel_read_safe": True}
