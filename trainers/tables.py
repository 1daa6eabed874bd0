"""Numbers as text, and tables for a terminal."""

from collections.abc import Sequence

from ..plain import printable


def format_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Align columns: words on the left, numbers on the right."""
    rows = [[printable(cell) for cell in row] for row in rows]
    columns = list(zip(headings, *rows, strict=True))
    widths = [max(map(len, column)) for column in columns]
    numeric = [all(_is_number(cell) for cell in column[1:]) for column in columns]
    lines = []
    for row in (headings, ["-" * width for width in widths], *rows):
        aligned = [
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(row, widths, numeric, strict=True)
        ]
        lines.append("  ".join(aligned).rstrip())
    return "\n".join(lines)


def decimal(value: float | None, digits: int = 1) -> str:
    """Return a number with so many digits behind the point, `-` for None."""
    return "-" if value is None else f"{value:.{digits}f}"


def percent(share: float | None) -> str:
    """Return a share of 1 as percent with two digits, `-` for None."""
    return decimal(None if share is None else 100 * share, digits=2)


def text_of(value: object) -> str:
    """Return a value as text, `-` for None."""
    return "-" if value is None else str(value)


def _is_number(cell: str) -> bool:
    return cell == "-" or cell.lstrip("+-").replace(".", "", 1).isdigit()
