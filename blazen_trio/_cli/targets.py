"""`package.module:workflow`: arguments that name workflows, and their import."""

from __future__ import annotations

import importlib
import logging
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import click

import blazen_trio
from blazen_trio import Workflow
from blazen_trio._cli.exits import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from types import ModuleType

__all__ = ["Target", "load_workflows", "parse_targets"]

logger = logging.getLogger("blazen_trio.cli")


@attrs.frozen
class Target:
    """The name of a workflow, or of a list or tuple of workflows, in a module.

    Attributes:
        module: The module, as for `import`.
        attribute: A name in it; with dots, an attribute of that object.
    """

    module: str
    attribute: str

    def __str__(self) -> str:
        return f"{self.module}:{self.attribute}"


def parse_targets(
    _ctx: click.Context, _param: click.Parameter, texts: Sequence[str]
) -> list[Target]:
    """Parse an argument's texts as targets: a callback for click."""
    return [_parse(text) for text in texts]


def _parse(text: str) -> Target:
    module, colon, attribute = text.partition(":")
    script = module.endswith(".py")
    if (
        colon
        and not script
        and all(name.isidentifier() for name in (*module.split("."), *attribute.split(".")))
    ):
        return Target(module, attribute)
    msg = f"{text!r} is not of the form package.module:workflow"
    if script:
        guess = module.removesuffix(".py").strip("./").replace("/", ".")
        msg += f"; a module is named as for import: {guess}:{attribute or 'workflow'}"
    raise click.BadParameter(msg)


def load_workflows(targets: Iterable[Target]) -> list[Workflow]:
    """Import the modules, and return the workflows.

    Modules in the current directory can be imported, as with `python -m`.

    Raises:
        ConfigError: A module can't be imported, or has no such attribute; the attribute is not a
            workflow; or two workflows have the same name.
    """
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    found: dict[str, tuple[str, Workflow]] = {}
    for target in targets:
        for name, workflow in _workflows(target):
            first, known = found.setdefault(workflow.name, (name, workflow))
            if known is not workflow:
                raise ConfigError(
                    f"{first} and {name} are two workflows of one name, {workflow.name!r}: a run's "
                    "workflow is found by its name, so rename one, or run a worker for each "
                    "database"
                )
    return [workflow for _, workflow in found.values()]


def _workflows(target: Target) -> Iterator[tuple[str, Workflow]]:
    """Yield the workflows of a target, each with the target that names it alone."""
    module = _module(target.module)
    value: Any = module
    for name in target.attribute.split("."):
        try:
            value = getattr(value, name)
        except AttributeError:
            of = (
                f"the module {target.module!r}" if value is module else f"{value!r:.80} in {target}"
            )
            raise ConfigError(
                f"{target}: {of} has no attribute {name!r}; {_what_there_is(module)}"
            ) from None
    if isinstance(value, Workflow):
        yield str(target), value
        return
    if not isinstance(value, list | tuple):
        raise ConfigError(
            f"{target} is {_named(value)}, not a Workflow nor a list of Workflows; "
            f"{_what_there_is(module)}"
        )
    if not value:
        raise ConfigError(
            f"{target} is empty: a worker needs a workflow to serve; {_what_there_is(module)}"
        )
    for index, member in enumerate(value):
        if not isinstance(member, Workflow):
            raise ConfigError(
                f"{target}[{index}] is {_named(member)}, not a Workflow: a list must contain only "
                "workflows"
            )
        yield f"{target}[{index}]", member


def _named(value: object) -> str:
    kind = type(value).__name__
    return f"{'an' if kind[0] in 'aeiouAEIOU' else 'a'} {kind}"


def _what_there_is(module: ModuleType) -> str:
    names = [
        f"{module.__name__}:{name}"
        for name, value in vars(module).items()
        if isinstance(value, Workflow)
    ]
    return f"its workflows are {', '.join(names)}" if names else "the module has no workflows"


def _module(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if name == missing or name.startswith(f"{missing}."):
            raise ConfigError(_not_there(name, missing)) from None
        raise ConfigError(_failed(name, error)) from error
    except (Exception, SystemExit) as error:  # a module's own code may raise anything
        raise ConfigError(_failed(name, error)) from error


def _not_there(name: str, missing: str) -> str:
    where = f"neither the current directory ({Path.cwd()}) nor the installed packages have it"
    parent = name.rpartition(".")[0]
    inside = f", and so no {name!r}" if missing != name else ""
    package = sys.modules.get(parent)
    if package is not None and not hasattr(package, "__path__"):
        return (
            f"there is no module {name!r}: {parent!r} is a module, not a package; did you mean "
            f"{parent}:{name.rpartition('.')[2]}?"
        )
    return f"there is no module {missing!r}{inside}: {where}"


def _failed(name: str, error: BaseException) -> str:
    """Describe an error of a module, with its place in code that is neither Python's nor ours."""
    logger.debug("importing %s", name, exc_info=error)
    ours = str(Path(blazen_trio.__file__).parent)
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if "importlib" not in frame.filename
    ]
    theirs = [frame for frame in frames if not frame.filename.startswith((ours, "<"))]
    place = f", at {theirs[-1].filename}:{theirs[-1].lineno}" if theirs else ""
    return f"importing {name!r} failed{place}: {type(error).__name__}: {error}"
