"""How Sphinx builds this documentation: `nox -s docs`. It needs no network."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import attrs
from docutils import nodes
from sphinx import addnodes
from sphinx.transforms import SphinxTransform
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util import logging

import blazen_trio

sys.path.insert(0, str(Path(__file__).parent))
from diagrams import picture_of

logger = logging.getLogger(__name__)

project = "blazen-trio"
release = version = blazen_trio.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
html_theme = "furo"
html_title = f"blazen-trio {release}"
html_static_path = ["_static"]
html_css_files = ["diagrams.css"]
html_copy_source = html_show_sphinx = html_show_copyright = False

myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
add_module_names = False
python_maximum_signature_line_length = 100
toc_object_entries_show_parents = "hide"
napoleon_numpy_docstring = False
napoleon_custom_sections = [("Attributes", "params_style"), ("Class attributes", "params_style")]

# `code` in a docstring is a link where it names something of the reference.
default_role = "py:obj"

# What annotations name that is described elsewhere.
nitpick_ignore_regex = [
    ("py:class", r"(collections\.abc|contextlib|datetime|dt|sa|sqlalchemy|trio|types|typing)\..*"),
    (
        "py:class",
        "AbstractAsyncContextManager|AsyncIterator|Callable|Collection|Iterable|Mapping|Sequence|TracebackType",
    ),
    (
        "py:class",
        r"([\w.]*\.)?(E|F|T|Handle|InputHandler|MeterProvider|RetryOn|TracerProvider|WorkflowDefinition)",
    ),  # type variables, aliases, a base
]

NOT_MADE_BY_USERS = {"Context", "EventStream", "Run", "RunStart", "Runtime", "Snapshot", "SqlStore"}


def tidy_signature(
    _app: Any,
    what: str,
    name: str,
    documented: Any,
    _options: Any,
    signature: str | None,
    returns: str | None,
) -> tuple[str | None, str | None]:
    """What the engine makes, and errors, without what they are made with; defaults as the values that they are."""
    if what == "exception" or (what == "class" and name.rpartition(".")[2] in NOT_MADE_BY_USERS):
        return "", None
    if signature is not None:
        # Where attrs writes the `__init__`, it looks its defaults up in a dict.
        signature = re.sub(
            r"attr_dict\['(\w+)'\]\.default",
            lambda found: repr(attrs.fields_dict(documented)[found[1]].default),
            signature,
        )
        signature = re.sub(r"\b(NOTHING|_KEEP|_OWN|_NO_BLOBS)\b", "...", signature)
    return signature, returns


def link_or_leave(app: Any, env: Any, node: Any, contents: Any) -> Any:
    """`code` is a link where it is a public name, wherever it is said, and just code where it names nothing of the reference."""
    if node.get("reftype") != "obj":
        return None
    node["py:module"], node["py:class"] = "blazen_trio", None
    domain = env.domains["py"]
    return (
        domain.resolve_xref(
            env, node["refdoc"], app.builder, "obj", node["reftarget"], node, contents
        )
        or contents
    )


PLACE = re.compile(r"[\w/-]+\*\n")


def leave_out_missing_pages(app: Any, _docname: str, source: list[str]) -> None:
    """A path that ends in `*`, on a line of its own, is a place in a table of contents: of pages that there may be."""
    lines = source[0].splitlines(keepends=True)
    kept = (
        line
        for line in lines
        if not PLACE.fullmatch(line) or any(Path(app.srcdir).glob(f"{line.strip()}.md"))
    )
    source[0] = "".join(kept)


class Diagrams(SphinxTransform):
    """State diagrams as the pictures that were drawn of them; other Mermaid blocks as their text."""

    default_priority = 500

    def apply(self, **_kwargs: Any) -> None:
        """Called by Sphinx, for each page."""
        for block in list(self.document.findall(nodes.literal_block)):
            if block.get("language") != "mermaid":
                continue
            picture = picture_of(block.astext().strip())
            if picture is not None:
                block.replace_self(
                    nodes.raw("", f'<div class="diagram">{picture}</div>', format="html")
                )
            else:
                block["language"] = "text"
                if block.astext().startswith("stateDiagram"):
                    logger.warning(
                        "nobody has drawn this diagram: run `python docs/diagrams.py`",
                        location=block,
                    )


class LinksOutOfTheSite(SphinxPostTransform):
    """A link to a page of the repository that is not on the site is its text there."""

    default_priority = 5  # before MyST looks for it

    def run(self, **_kwargs: Any) -> None:
        """Called by Sphinx, for each page."""
        for link in list(self.document.findall(addnodes.pending_xref)):
            if (
                link["reftype"] == "myst"
                and link["refdomain"] == "doc"
                and link["reftarget"].startswith("/")
            ):
                link.replace_self(link.children)


def setup(app: Any) -> None:
    """Called by Sphinx."""
    app.add_transform(Diagrams)
    app.add_post_transform(LinksOutOfTheSite)
    app.connect("source-read", leave_out_missing_pages)
    app.connect("autodoc-process-signature", tidy_signature)
    app.connect("missing-reference", link_or_leave)
