"""Sphinx: sphinx-build -W --keep-going -b html docs build/docs"""

import sys
from pathlib import Path

import fastloss

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "docs" / "_ext"))

project = "fastloss"
author = "the authors of fastloss"
release = version = fastloss.__version__
copyright = f"{author}. BSD-3-Clause"

extensions = [
    "myst_parser",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx_copybutton",
    "catalogue",
    "formulas",
    "repository",
]
exclude_patterns = ["_ext"]
suppress_warnings = ["myst.header"]  # performance-*.md have ### below #

default_role = "py:obj"
highlight_language = "text"
autodoc_member_order = "bysource"
autodoc_typehints = "none"
numpydoc_show_class_members = False
toc_object_entries = False
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True
myst_heading_anchors = 3
myst_enable_extensions = ["colon_fence", "deflist"]

html_theme = "furo"
html_title = "fastloss"
html_static_path = ["_static"]
html_extra_path = ["performance.png", "performance-narrow.png"]  # of <picture> in performance.md
html_css_files = ["fastloss.css"]
html_copy_source = False
html_show_sphinx = False
html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#005a8f", "color-brand-content": "#005a8f"},
    "dark_css_variables": {"color-brand-primary": "#6cb8ea", "color-brand-content": "#6cb8ea"},
}
