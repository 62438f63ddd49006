"""Sphinx configuration of these pages (`make docs`), which need no network to build or read."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import sbi_models

project = "sbi_models"
author = "The sbi_models developers"
copyright = author
version = release = sbi_models.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "reference_pages",
]
exclude_patterns = ["_build"]
highlight_language = "none"

# Pages are Markdown that also reads well on a Git host: headings can be linked to, as there.
myst_heading_anchors = 3
myst_links_external_new_tab = False

# Docstrings are Google's style, with `names` in single backticks.
default_role = "code"
napoleon_use_rtype = False
napoleon_use_ivar = True
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
autodoc_class_signature = "mixed"
autodoc_default_options = {"members": True, "show-inheritance": True}
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 90
add_module_names = False

html_theme = "furo"
html_title = f"sbi_models {version}"
html_static_path = ["static"]
html_css_files = ["pages.css"]
html_copy_source = False
html_show_sphinx = False
html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#1f5fa8", "color-brand-content": "#1f5fa8"},
    "dark_css_variables": {"color-brand-primary": "#7db4f0", "color-brand-content": "#7db4f0"},
}
