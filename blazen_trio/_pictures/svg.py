"""Shared parts of the drawings: fitting text, colours for light and dark screens, the frame."""

from __future__ import annotations

import re
import unicodedata
from html import escape
from typing import Final

__all__ = ["CHAR", "LINE", "clean", "document", "element", "shorten", "style", "text", "text_width"]

CHAR: Final = 7.3
"""The width of a character in pixels: the font is monospaced, so text need not be measured."""
LINE: Final = 16.0

_FONT = (
    "12px ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono','Liberation Mono',monospace"
)
_LAST_OF_PLANES = "".join(
    chr(plane * 0x10000 + last) for plane in range(1, 17) for last in (0xFFFE, 0xFFFF)
)
_UNFIT = re.compile(
    r"[^\x20-\x7e\xa0-\ud7ff\ue000-\ufdcf\ufdf0-\ufffd\U00010000-\U0010ffff]"
    f"|[{_LAST_OF_PLANES}]"
)
"""Characters invalid in XML or altered by HTML: controls, surrogates and noncharacters."""
_BREAKS: Final = {ord(char): " " for char in "\t\n\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029"}
_LIGHT: Final = {
    "paper": "#ffffff",
    "frame": "#d0d7de",
    "ink": "#1f2328",
    "soft": "#59636e",
    "line": "#6e7781",
    "step": "#ddf4ff",
    "rim": "#0969da",
    "pill": "#f6f8fa",
    "done": "#dafbe1",
    "done-rim": "#1a7f37",
    "failed": "#ffdcd7",
    "failed-rim": "#cf222e",
    "undone": "#ddf4ff",
    "undone-rim": "#0969da",
    "waiting": "#fff3c4",
    "waiting-rim": "#9a6700",
    "retrying": "#ffe6cc",
    "retrying-rim": "#bc4c00",
    "shade": "#eff2f5",
}
_DARK: Final = {
    "paper": "#0d1117",
    "frame": "#3d444d",
    "ink": "#f0f6fc",
    "soft": "#9198a1",
    "line": "#9198a1",
    "step": "#12305a",
    "rim": "#4493f8",
    "pill": "#21262d",
    "done": "#11381f",
    "done-rim": "#3fb950",
    "failed": "#5c1a1b",
    "failed-rim": "#f85149",
    "undone": "#12305a",
    "undone-rim": "#4493f8",
    "waiting": "#443207",
    "waiting-rim": "#d29922",
    "retrying": "#4d2608",
    "retrying-rim": "#f0883e",
    "shade": "#1b2129",
}


def clean(value: str) -> str:
    """Return a text on one line, without characters that a document can't contain."""
    return _UNFIT.sub("\N{REPLACEMENT CHARACTER}", value.translate(_BREAKS))


def text_width(value: str) -> float:
    """Return an upper bound of a text's width, in pixels."""
    cells = 0
    for char in value:
        if char.isascii():
            cells += 1
        elif not unicodedata.combining(char):
            cells += 2 if unicodedata.east_asian_width(char) in "WF" or ord(char) > 0x2FFF else 1
    return cells * CHAR


def shorten(value: str, width: float) -> str:
    """Return a text on one line, cut to a width in pixels."""
    value = clean(value)
    if text_width(value) <= width:
        return value
    room, taken = width - CHAR, 0
    for taken, char in enumerate(value):  # noqa: B007  # how many fit
        room -= text_width(char)
        if room < 0:
            break
    return value[:taken] + "\N{HORIZONTAL ELLIPSIS}"


def element(name: str, content: str = "", **attributes: str | float | None) -> str:
    """Return an element. Its content is markup, and attributes that are `None` are left out.

    In attribute names, a trailing `_` is left out, and any other becomes a `-`.
    """
    shown = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(_number(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    return f"<{name}{shown}>{content}</{name}>" if content else f"<{name}{shown}/>"


def _number(value: str | float) -> str:
    return value if isinstance(value, str) else f"{value:.1f}".removesuffix(".0")


def text(
    x: float, y: float, value: str, class_: str | None = None, *, anchor: str | None = None
) -> str:
    """Return a line of text whose baseline is at `y`."""
    return element("text", escape(clean(value)), x=x, y=y, class_=class_, text_anchor=anchor)


def style(root: str, rules: dict[str, str]) -> str:
    """Return CSS for the elements below the class `root`, for light and dark screens.

    `$name` in a rule is a colour.
    """
    light = _rules(root, rules, _LIGHT, every=True)
    dark = _rules(root, rules, _DARK, every=False)
    return element(
        "style", f".{root} text{{font:{_FONT}}}{light}@media (prefers-color-scheme:dark){{{dark}}}"
    )


def _rules(root: str, rules: dict[str, str], colours: dict[str, str], *, every: bool) -> str:
    written = ""
    for selector, rule in rules.items():
        parts = [part for part in rule.split(";") if every or "$" in part]
        if parts:
            body = re.sub(r"\$([a-z-]+)", lambda name: colours[name[1]], ";".join(parts))
            written += ",".join(f".{root} {one}" for one in selector.split(",")) + "{" + body + "}"
    return written


def document(
    root: str,
    width: float,
    height: float,
    title: str,
    summary: str,
    rules: dict[str, str],
    body: str,
) -> str:
    """Return a complete drawing with a background, a title and a description for screen readers.

    It has no ids, so one page can contain any number of drawings.
    """
    frame = element("rect", x=0.5, y=0.5, width=width - 1, height=height - 1, rx=8, class_="paper")
    rules = {
        ".paper": "fill:$paper;stroke:$frame",
        "text": "fill:$ink",
        "text.soft": "fill:$soft",
        **rules,
    }
    head = (
        element("title", escape(clean(title)))
        + element("desc", escape(clean(summary)))
        + style(root, rules)
    )
    return element(
        "svg",
        f"{head}\n{frame}\n{body}\n",
        xmlns="http://www.w3.org/2000/svg",
        class_=root,
        role="img",
        aria_label=clean(title),
        width=width,
        height=height,
        viewBox=f"0 0 {_number(width)} {_number(height)}",
    )
