"""Resolution of postponed annotations, with names copied from the scopes that define them.

The names are copied because a stored frame would keep all of its variables alive.
"""

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
    """A name in an annotation is not defined (yet).

    Attributes:
        name: The name.
    """

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


class _Unquote(ast.NodeTransformer):
    """A transformer that unquotes the quoted parts of an annotation (`A | "B"`).

    It leaves `Literal` and metadata alone.
    """

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
    except SyntaxError:  # becomes a fault when the annotation is read
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            yield node.id


def strings_in(annotation: Any) -> Iterator[str]:
    """Yield the postponed parts of an annotation, as source text."""
    if isinstance(annotation, str):
        yield annotation
    elif isinstance(annotation, typing.ForwardRef):
        yield annotation.__forward_arg__
    else:
        for argument in typing.get_args(annotation):
            yield from strings_in(argument)


def _enclosing_frames(qualname: str, module_globals: Mapping[str, Any]) -> Iterator[FrameType]:
    """Yield the running frames whose code encloses the definition of a name, innermost first."""
    frame: FrameType | None = sys._getframe(1)  # noqa: SLF001  # no public way to callers' names
    while frame is not None:
        if frame.f_globals is module_globals and qualname.startswith(
            frame.f_code.co_qualname + "."
        ):
            yield frame
        frame = frame.f_back


class Scope:
    """The names that the annotations of one definition may use.

    Names are looked up in Python's order: enclosing functions and classes as they were when the
    name was captured, closure, module, builtins. A name that is still missing is looked up in the
    enclosing frames that are still running. A class defined after the step that names it is thus
    found when the workflow is built.
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
        """Copy the names that these annotations use from the enclosing frames, if they exist."""
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
        """Return the name's value in a tuple, which is empty if the name is not defined."""
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
        """Evaluate the annotation `text`.

        Raises:
            UnknownNameError: It uses a name that is not defined.
            Exception: It is not an expression, or evaluating it fails.
        """
        self._capture({name for name in _names_in(text) if not self._find(name)})
        # The text is source code of the program, as in typing.get_type_hints. It is never data.
        code = compile(_expression(text), "<annotation>", "eval")
        return eval(code, {"__builtins__": vars(builtins)}, cast("Any", self))  # noqa: S307
