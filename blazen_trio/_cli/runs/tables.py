"""Tables that fit the terminal: what has to be read whole stays whole, and the rest gives way in an order that each table says."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rich.table import Table

from blazen_trio._cli.runs.display import cell

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rich.console import Console, ConsoleOptions, RenderResult
    from rich.text import Text

__all__ = ["table"]

_GAP: Final = 2
_LEAST: Final = 10
"""Characters of a last column of which nothing else is said."""


def table(
    *headings: str,
    rows: Iterable[Sequence[str | Text]],
    gives_way: Sequence[tuple[str, int | slice]] = (),
) -> _Table:
    """A table without lines, as wide as it has to be, or as the terminal is.

    Args:
        headings: The columns.
        rows: Their cells.
        gives_way: What is done, one after the other, until the table fits: (heading, how). A number cuts the column, to no fewer
            characters than that, and 0 leaves it out; a slice is what is left of each cell. By default the last column is cut. What
            is not named here is never hidden: a cell goes on in the next line where nothing else helps.
    """
    return _Table(
        headings,
        [[cell(one) for one in row] for row in rows],
        gives_way or [(headings[-1], _LEAST)],
    )


class _Table:
    """Made anew for each width: rich shrinks all columns alike, and those to be read whole first."""

    def __init__(
        self,
        headings: Sequence[str],
        rows: Sequence[Sequence[Text]],
        gives_way: Sequence[tuple[str, int | slice]],
    ) -> None:
        self._columns = {
            heading: [row[index] for row in rows] for index, heading in enumerate(headings)
        }
        self._gives_way = gives_way

    def __rich_console__(self, _console: Console, options: ConsoleOptions) -> RenderResult:
        columns, cut = self._fitted(options.max_width)
        # Gaps are columns of their own: whether a padding is part of a column's width is another
        # matter in each version of rich.
        made = Table(box=None, pad_edge=False, padding=0, header_style="bold")
        for index, heading in enumerate(columns):
            if index:
                made.add_column(width=_GAP)
            if heading in cut:
                made.add_column(heading, overflow="ellipsis", no_wrap=True, width=cut[heading])
            else:
                made.add_column(heading, overflow="fold")
        for row in zip(*columns.values(), strict=True):
            made.add_row(row[0], *(part for one in row[1:] for part in ("", one)))
        yield made

    def _fitted(self, room: int) -> tuple[dict[str, Sequence[Text]], dict[str, int]]:
        """The columns that are left, and the widths of those that are cut."""
        columns: dict[str, Sequence[Text]] = dict(self._columns)
        widths = {heading: _width(heading, cells) for heading, cells in columns.items()}
        cut: dict[str, int] = {}
        for heading, how in self._gives_way:
            over = sum(widths.values()) + _GAP * (len(widths) - 1) - room
            if over <= 0:
                break
            if how == 0:
                del columns[heading], widths[heading]
                cut.pop(heading, None)
            elif isinstance(how, slice):
                columns[heading] = [one[how] for one in columns[heading]]
                widths[heading] = _width(heading, columns[heading])
            else:
                widths[heading] = cut[heading] = min(
                    widths[heading], max(how, widths[heading] - over)
                )
        # A column that went may have left more room than was wanted.
        spare = room - sum(widths.values()) - _GAP * (len(widths) - 1)
        for heading, width in cut.items():
            cut[heading] = min(width + max(spare, 0), _width(heading, columns[heading]))
            spare -= cut[heading] - width
        return columns, cut


def _width(heading: str, cells: Sequence[Text]) -> int:
    return max([len(heading), *(one.cell_len for one in cells)])
