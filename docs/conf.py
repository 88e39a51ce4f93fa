"""The Sphinx configuration of this documentation: `nox -s docs`. The build needs no network."""

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

# `code` in a docstring becomes a link if it names something in the reference.
default_role = "py:obj"

# Names in annotations that this reference does not describe.
nitpick_ignore_regex = [
    ("py:class", r"(collections\.abc|contextlib|datetime|dt|sa|sqlalchemy|trio|types|typing)\..*"),
    (
        "py:class",
        "AbstractAsyncContextManager|AsyncIterator|Callable|Collection|Iterable|Mapping|Sequence"
        "|TracebackType",
    ),
    (
        "py:class",
        r"([\w.]*\.)?(E|F|T|Handle|InputHandler|MeterProvider|RetryOn|TracerProvider"
        r"|WorkflowDefinition)",
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
    """Hide the arguments of errors and of what users don't create, and show real defaults."""
    if what == "exception" or (what == "class" and name.rpartition(".")[2] in NOT_MADE_BY_USERS):
        return "", None
    if signature is not None:
        # An `__init__` that attrs writes looks its defaults up in a dict.
        signature = re.sub(
            r"attr_dict\['(\w+)'\]\.default",
            lambda found: repr(attrs.fields_dict(documented)[found[1]].default),
            signature,
        )
        signature = re.sub(r"\b(NOTHING|_KEEP|_OWN|_NO_BLOBS)\b", "...", signature)
    return signature, returns


def link_or_leave(app: Any, env: Any, node: Any, contents: Any) -> Any:
    """Link `code` to the public name that it is, in any module; leave other code as it is."""
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
    """Drop a line `path*` from a table of contents if no page has a name that starts so."""
    lines = source[0].splitlines(keepends=True)
    kept = (
        line
        for line in lines
        if not PLACE.fullmatch(line) or any(Path(app.srcdir).glob(f"{line.strip()}.md"))
    )
    source[0] = "".join(kept)


class Diagrams(SphinxTransform):
    """Replaces state diagrams by their pictures, and shows other Mermaid blocks as text."""

    default_priority = 500

    def apply(self, **_kwargs: Any) -> None:
        """Change one page; called by Sphinx."""
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
                        "this diagram has no picture: run `python docs/diagrams.py`",
                        location=block,
                    )


class LinksOutOfTheSite(SphinxPostTransform):
    """Replaces links to pages of the repository that are not on the site by their text."""

    default_priority = 5  # before MyST looks for it

    def run(self, **_kwargs: Any) -> None:
        """Change one page; called by Sphinx."""
        for link in list(self.document.findall(addnodes.pending_xref)):
            if (
                link["reftype"] == "myst"
                and link["refdomain"] == "doc"
                and link["reftarget"].startswith("/")
            ):
                link.replace_self(link.children)


def setup(app: Any) -> None:
    """Register the extensions above; called by Sphinx."""
    app.add_transform(Diagrams)
    app.add_post_transform(LinksOutOfTheSite)
    app.connect("source-read", leave_out_missing_pages)
    app.connect("autodoc-process-signature", tidy_signature)
    app.connect("missing-reference", link_or_leave)
