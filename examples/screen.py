"""Output of the example to the terminal: a progress bar on stderr, the report on stdout."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)
from stdlib_workflow import Found, Measured, Report

if TYPE_CHECKING:
    from blazen_trio import Run


def progress_bar() -> Progress:
    """Return a bar on stderr, so that stdout holds only the report."""
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description:<34}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=Console(stderr=True),
    )


async def follow(run: Run, title: str) -> Report:
    """Show the progress of a run until it ends. Return its report."""
    events = run.stream()
    state = (await run.snapshot()).state
    with progress_bar() as bar:
        task = bar.add_task(title, total=state.get("total"), completed=state.get("measured", 0))
        async for event in events:
            if isinstance(event, Found):
                bar.update(task, total=event.count)
            elif isinstance(event, Measured):
                bar.advance(task)
        result: Report = await run.result()
        bar.update(task, total=result.files, completed=result.files)
    return result


def print_report(found: Report) -> None:
    """Print a report for people."""
    print(
        f"{found.files} files, {found.lines:,} lines, {found.functions:,} functions, "
        f"{found.classes:,} classes"
    )
    print("Largest functions:")
    for function in found.largest[:5]:
        print(f"  {function.lines:5} lines  {function.name} ({function.path})")
    print("Modules imported by the most files:")
    for module, count in list(found.most_imported.items())[:5]:
        print(f"  {count:5} files  {module}")
    for problem in found.unreadable:
        print(f"  could not be read: {problem}")
