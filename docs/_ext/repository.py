"""Pages whose sources lie elsewhere in the repository, and Markdown as readers want it."""

import re
from pathlib import Path

from catalogue import write

SOURCES = {"contributing": "CONTRIBUTING.md", "changelog": "CHANGELOG.md"}


def local(link):
    text, target = link.groups()
    if "://" in target:
        return link[0]
    page = re.fullmatch(r"docs/(.*\.md)", target)
    return f"[{text}](../{page[1]})" if page else f"`{text}`"


def copy(app):
    """Links of the copies go to pages here, or are none."""
    folder = Path(app.srcdir)
    (folder / "generated").mkdir(exist_ok=True)
    for name, source in SOURCES.items():
        text = (folder.parent / source).read_text(encoding="utf-8")
        text = re.sub(r"\[([^\]]+)\]\(([^)]+)\)", local, text)
        write(folder / "generated" / f"{name}.md", text)


def close_up(app, docname, source):
    """No empty line at the end of a block of code, where doctest needs one."""
    source[0] = source[0].replace("\n\n```\n", "\n```\n")


def setup(app):
    app.connect("builder-inited", copy)
    app.connect("source-read", close_up)
    return {"parallel_read_safe": True}
