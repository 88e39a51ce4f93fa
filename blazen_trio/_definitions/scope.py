"""Finding what a postponed annotation means: names of the defining scopes, copied, never their frames."""

from __future__ import annotations

import ast
import builtins
import sys
import typing
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from types import CellType, FrameType

__all__ = ["Scope", "UnknownNameError", "strings_in"]


class UnknownNameError(Exception):
    """A name in an annotation means nothing (yet).

    Attributes:
        name: The name.
    """

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


class _Unquote(ast.NodeTransformer):
    """Turns quoted parts of an annotation (`A | "B"`) into what they quote; leaves `Literal` and metadata alone."""

    def visit_Constant(self, node: ast.Constant) -> ast.AST:
        return (
            ast.fix_missing_locations(self.visit(_parse(node.value)))
            if isinstance(node.value, str)
            else node
        )

    def visit_Subscript(self, node: ast.Subscript) -> ast.AST:
        name = (
            node.value.attr
            if isinstance(node.value, ast.Attribute)
            else getattr(node.value, "id", "")
        )
        if name == "Literal":
            return node
        if name == "Annotated" and isinstance(node.slice, ast.Tuple):
            node.slice.elts[0] = self.visit(node.slice.elts[0])
            return node
        return self.generic_visit(node)


def _parse(text: str) -> ast.expr:
    return ast.parse(text.strip(), mode="eval").body


def _expression(text: str) -> ast.Expression:
    return ast.fix_missing_locations(ast.Expression(_Unquote().visit(_parse(text))))


def _names_in(text: str) -> Iterator[str]:
    try:
        tree = _expression(text)
    except SyntaxError:  # told when the annotation is read
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            yield node.id


def strings_in(annotation: Any) -> Iterator[str]:
    """The postponed parts of an annotation, as source text."""
    if isinstance(annotation, str):
        yield annotation
    elif isinstance(annotation, typing.ForwardRef):
        yield annotation.__forward_arg__
    else:
        for argument in typing.get_args(annotation):
            yield from strings_in(argument)


def _enclosing_frames(qualname: str, module_globals: Mapping[str, Any]) -> Iterator[FrameType]:
    """The running frames, innermost first, whose code lexically encloses the definition of that qualified name."""
    frame: FrameType | None = sys._getframe(1)  # noqa: SLF001  # the one way to a caller's names
    while frame is not None:
        if frame.f_globals is module_globals and qualname.startswith(
            frame.f_code.co_qualname + "."
        ):
            yield frame
        frame = frame.f_back


class Scope:
    """The names that the annotations of one definition may use.

    Looked up in this order, as Python does: enclosing functions and classes as they were when a name was captured,
    closure, module, builtins; what is missing then is looked for in enclosing frames that are still running,
    so that a class defined after the step that names it is found when the workflow is built.
    """

    __slots__ = ("cells", "module", "names", "qualname")

    def __init__(
        self, qualname: str, module: Mapping[str, Any], cells: Mapping[str, CellType] | None = None
    ) -> None:
        self.qualname = qualname
        self.module = module
        self.cells = cells or {}
        self.names: dict[str, Any] = {}

    def capture(self, texts: Iterable[str]) -> None:
        """Copy from the enclosing frames the names that these annotations use, as far as they exist."""
        self._capture({name for text in texts for name in _names_in(text)})

    def _capture(self, wanted: set[str]) -> None:
        if wanted and "." in self.qualname:
            for frame in _enclosing_frames(self.qualname, self.module):
                # In Python before 3.13 each access to f_locals copies the frame's variables.
                variables = frame.f_locals
                found = {name: variables[name] for name in wanted if name in variables}
                self.names.update(found)
                wanted -= found.keys()

    def _find(self, name: str) -> tuple[Any, ...]:
        """The name's value, in a tuple; an empty one if it has none."""
        if name in self.names:
            return (self.names[name],)
        if name in self.cells:
            try:
                return (self.cells[name].cell_contents,)
            except ValueError:  # not assigned yet
                return ()
        for names in (self.module, vars(builtins)):
            if name in names:
                return (names[name],)
        return ()

    def __getitem__(self, name: str) -> Any:
        if found := self._find(name):
            return found[0]
        raise UnknownNameError(name)

    def resolve(self, text: str) -> Any:
        """What the annotation `text` means.

        Raises:
            UnknownNameError: It uses a name that is defined nowhere.
            Exception: It is no expression, or evaluating it fails.
        """
        self._capture({name for name in _names_in(text) if not self._find(name)})
        # This is source code of the program, just as typing.get_type_hints evaluates it; never data.
        code = compile(_expression(text), "<annotation>", "eval")
        return eval(code, {"__builtins__": vars(builtins)}, cast("Any", self))  # noqa: S307
