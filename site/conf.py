"""Sphinx configuration for the site, which `python site/build.py` builds."""

import re
from typing import Any

import latex2mathml.converter
from docutils import nodes
from sphinx.application import Sphinx

project = author = "lora_lab"
copyright = "the authors of lora_lab"
extensions = ["myst_nb", "sphinx_copybutton"]
suppress_warnings = ["misc.highlighting_failure"]  # a cell may contain text that isn't Python

myst_enable_extensions = ["dollarmath", "colon_fence", "html_image"]
myst_heading_anchors = 3
nb_execution_mode, nb_render_markdown_format = "off", "myst"
nb_merge_streams = True
nb_ipywidgets_js: dict[str, Any] = {}  # the default loads scripts from CDNs
nb_code_prompt_show, nb_code_prompt_hide = "Show a solution", "Hide"

html_theme, html_title = "furo", "lora_lab"
pygments_dark_style = "github-dark"
html_math_renderer = "mathml"
html_favicon = "icon.svg"  # shows W, A and B
html_css_files, html_js_files = ["site.css"], ["host.js"]
html_show_sourcelink = html_copy_source = html_use_index = False
html_show_search_summary = False  # a summary fetches pages, which browsers refuse on file://
html_sidebars = {
    "**": [f"sidebar/{part}.html" for part in ("brand", "search", "scroll-start", "navigation", "scroll-end")]
}
COLORS = {"light": ("#0072b2", "#f5f6f7"), "dark": ("#56b4e9", "#1d1f23")}  # colors of trained parts, and behind code
html_theme_options = {
    f"{mode}_css_variables": {
        **dict.fromkeys(("color-brand-primary", "color-brand-content", "color-brand-visited"), blue),
        "color-code-background": code,
    }
    for mode, (blue, code) in COLORS.items()
}
copybutton_selector = "div:not(.output) > div.highlight > pre"
copybutton_prompt_text = "$ "


def inline_math(self: Any, node: nodes.math) -> None:
    self.body.append(latex2mathml.converter.convert(node.astext()))
    raise nodes.SkipNode


def block_math(self: Any, node: nodes.math_block) -> None:
    formula = latex2mathml.converter.convert(node.astext(), display="block")
    self.body.append(f'<div class="math" tabindex="0">{formula}</div>')
    raise nodes.SkipNode


def scripts(app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: Any) -> None:
    """Add the scripts that a page needs for its panels, predictions, puzzle and exercises."""
    marks = {"predict": "tag_predict", "puzzle": "data-puzzle", "words": "data-words", "answer": "data-answer"}
    needed = [f"{script}.js" for script, mark in marks.items() if mark in context.get("body", "")]
    for script in ["kept.js", *needed] if needed else []:
        app.add_js_file(script, loading_method="defer")
    for name in sorted(set(re.findall(r'data-panel="(\w+)"', context.get("body", "")))):
        app.add_js_file(f"panels/{name}.js", priority=900)  # after host.js


def setup(app: Sphinx) -> None:
    app.add_html_math_renderer("mathml", (inline_math, None), (block_math, None))
    app.connect("html-page-context", scripts)
