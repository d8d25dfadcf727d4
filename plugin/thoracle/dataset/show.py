"""A report for people, on a terminal."""

from collections.abc import Iterable, Iterator, Sequence

from rich.console import Console
from rich.table import Table

from thoracle.dataset.check import DatasetReport
from thoracle.dataset.layout import PARTS, PUBLISHED, Part

MOST_LINES = 8
"""Of a kind; the rest is in the JSON."""


def show(report: DatasetReport, out: Console) -> None:
    """Print what was found."""
    _say(out, f"{len(report.images)} images read, {len(report.unreadable)} unreadable")
    _listed(out, "", (f"{name}: {why}" for name, why in report.unreadable.items()))
    out.print(_counted(report))
    _show_copies(report, out)
    _show_leaks(report, out)
    for view, names in report.views().items():
        _listed(out, f"Labelled images that are {view}, not frontal: {len(names)}", names)
    _listed(out, "Files that differ from the manifest:", report.changed)
    if report.shortcuts:
        out.print(_shortcuts(report))


def show_split(report: DatasetReport, out: Console) -> None:
    """Print what the split without leaks holds."""
    kept, all_images = len(report.places), len(report.images)
    _say(out, f"\nSplit without leaks: {kept} images, {all_images - kept} copies left out")
    for part in PARTS:
        numbers = {
            label: count for (of, label), count in report.split_counts().items() if of == part
        }
        if numbers:
            text = ", ".join(f"{count} {label or 'unlabelled'}" for label, count in numbers.items())
            _say(out, f"  {part}: {text}")


def _say(out: Console, text: str) -> None:
    out.print(text, markup=False, highlight=False, soft_wrap=True)


def _listed(out: Console, title: str, lines: Iterable[str]) -> None:
    """Print a title and the first lines below it; nothing when there are no lines."""
    found = list(lines)
    if found and title:
        _say(out, title)
    for line in found[:MOST_LINES]:
        _say(out, f"  {line}")
    if len(found) > MOST_LINES:
        _say(out, f"  and {len(found) - MOST_LINES} more; --json names all")


def _counted(report: DatasetReport) -> Table:
    """Return the table of images by part and label, beside what Kaggle states."""
    table = Table(title="Images", title_justify="left")
    for column in ("part", "label"):
        table.add_column(column)
    for column in ("found", "published", "without leaks"):
        table.add_column(column, justify="right")
    counts, split = report.counts(), report.split_counts()
    for part, label in _rows([*counts, *split, *PUBLISHED]):
        published = PUBLISHED.get((part, label))
        table.add_row(
            part.value,
            label or "unlabelled",
            str(counts.get((part, label), 0)),
            "" if published is None else str(published),
            str(split.get((part, label), 0)),
        )
    return table


def _rows(keys: Sequence[tuple[Part, str]]) -> Iterator[tuple[Part, str]]:
    yield from sorted(set(keys), key=lambda key: (PARTS.index(key[0]), key[1]))


def _show_copies(report: DatasetReport, out: Console) -> None:
    sets, images = len(report.copies), sum(len(one.names) for one in report.copies)
    _say(out, f"\nExact copies: {images} images in {sets} sets with the same pixels")
    inside = (" = ".join(one.names) for one in report.copies if not one.across)
    _listed(out, "  within a part:", inside)
    near = [one for one in report.near_copies if not one.across]
    _listed(
        out,
        f"Near copies within a part: {len(near)} pairs",
        (f"{one.one} ~ {one.other} ({one.how})" for one in near),
    )
    _listed(out, "The same image with two labels:", (" = ".join(x) for x in report.two_labels))


def _show_leaks(report: DatasetReport, out: Console) -> None:
    """Print what one part knows of another: first the numbers, then what is behind them."""
    if not report.leaks:
        _say(out, "\nNo leaks between parts found")
        return
    table = Table(title="\nLEAKS between parts, in images", title_justify="left")
    table.add_column("images of")
    table.add_column("known in")
    for column in ("as exact copy", "as near copy", "by other images of the patient"):
        table.add_column(column, justify="right")
    for leak in report.leaks:
        numbers = (leak.copies, leak.near_copies, leak.patients)
        table.add_row(leak.part, leak.knows, *map(str, numbers))
    out.print(table)
    copies = (" = ".join(one.names) for one in report.copies if one.across)
    _listed(out, "Exact copies in several parts:", copies)
    near = (one for one in report.near_copies if one.across)
    _listed(
        out,
        "Near copies in several parts:",
        (f"{one.one} ~ {one.other} ({one.how})" for one in near),
    )
    _listed(
        out,
        "Patients in several parts:",
        (
            f"{one.patient}: {len(one.names)} images in {', '.join(one.parts)}"
            for one in report.patients
        ),
    )


def _shortcuts(report: DatasetReport) -> Table:
    """Return the table of rules on file properties, with the share of images each gets right."""
    parts = [part.value for part in PARTS if part.value in report.shortcuts[0].accuracy]
    title = "\nShortcuts: best rule without the picture, and its accuracy"
    table = Table(title=title, title_justify="left")
    table.add_column("rule: covid if")
    for part in parts:
        table.add_column(part, justify="right")
    for one in report.shortcuts:
        rule = f"({one.rule}: the majority class)" if one.name == "nothing" else one.rule
        table.add_row(rule, *(f"{one.accuracy[part]:.1%}" for part in parts))
    return table
