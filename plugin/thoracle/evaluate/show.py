"""The evaluation for people, on a terminal."""

from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from thoracle.evaluate.evaluation import RESEARCH, Evaluation, Figures
from thoracle.evaluate.metrics import Estimate

MOST_NAMES = 5
"""Of a kind; the rest is in the JSON."""
LABELS = {1: "positive", 0: "negative"}


def show(evaluation: Evaluation, out: Console) -> None:
    """Print the figures, what they rest on first."""
    if evaluation.caveat:
        _say(out, f"{evaluation.caveat}\n")
    _show_cases(evaluation, out)
    decision = evaluation.identity.decision
    title = f"Outcomes: positive from {decision.upper:g}, negative below {decision.lower:g}"
    out.print(_outcomes(evaluation, title))
    out.print(_figures(evaluation))
    _show_notes(evaluation, out)
    if evaluation.predictive:
        out.print(_predictive(evaluation))
    if evaluation.calibrations:
        out.print(_calibration(evaluation))
    _show_proposals(evaluation, out)
    if evaluation.pairs:
        out.print(_pairs(evaluation))
    _say(out, f"\n{RESEARCH}")


def plain(text: str) -> str:
    """Return a name from outside without control characters and markup."""
    return escape("".join(one if one.isprintable() else "?" for one in text))


def _say(out: Console, text: str) -> None:
    out.print(text, markup=False, highlight=False, soft_wrap=True)


def _table(title: str, names: Sequence[str], numbers: Sequence[str]) -> Table:
    table = Table(title=f"\n{title}", title_justify="left")
    for name in names:
        table.add_column(name)
    for number in numbers:
        table.add_column(number, justify="right", no_wrap=True)
    return table


def _said(estimate: Estimate | None, decimals: int = 2) -> str:
    if estimate is None:
        return "no images"
    numbers = (estimate.value, estimate.lower, estimate.upper)
    value, lower, upper = (f"{number:.{decimals}f}" for number in numbers)
    return f"{value} [{lower}, {upper}]"


def _show_cases(evaluation: Evaluation, out: Console) -> None:
    """Print how many cases there are, and all that is left out."""
    identity = evaluation.identity
    _say(out, f"Bundle {identity.name} {identity.version}, digest {identity.digest}")
    analysed = sum(one.probability is not None for one in evaluation.results)
    people = "" if evaluation.patients is None else f" of {evaluation.patients} patients"
    _say(
        out,
        f"{len(evaluation.results)} labelled cases found by {evaluation.labelled_by}: "
        f"{analysed} analysed{people}, {len(evaluation.results) - analysed} rejected",
    )
    for reason, counts in sorted(evaluation.rejected().items()):
        _say(out, f"  rejected, {reason}: {counts[1]} positive, {counts[0]} negative")
    for reason, n in sorted(evaluation.rejected_images().items()):
        _say(out, f"  images rejected of analysed cases, {reason}: {n}")
    for reason, names in sorted(evaluation.left_out.items()):
        _say(out, f"Left out, {reason}: {len(names)}")
        for name in names[:MOST_NAMES]:
            out.print(f"  {plain(name)}", highlight=False, soft_wrap=True)
        if len(names) > MOST_NAMES:
            _say(out, f"  and {len(names) - MOST_NAMES} more; --json names all")
    if evaluation.unused:
        columns = ", ".join(evaluation.unused)
        out.print(f"Columns not used: {plain(columns)}", highlight=False, soft_wrap=True)


def _outcomes(evaluation: Evaluation, title: str) -> Table:
    """Return the table of outcomes by label, with the rejected."""
    table = _table(title, ("label",), ("positive", "negative", "rejected", "indeterminate"))
    rejected = evaluation.rejected().values()
    for label, name in LABELS.items():
        found = evaluation.all.outcomes[label]
        table.add_row(
            name,
            str(found.positive),
            str(found.negative),
            str(sum(counts[label] for counts in rejected)),
            f"{found.indeterminate} = {_said(found.share_indeterminate)}",
        )
    return table


def _figures(evaluation: Evaluation) -> Table:
    """Return the table of rates and AUROC, for all and by group."""
    threshold = evaluation.identity.decision.threshold
    table = _table(
        f"At the threshold {threshold:g}, n positive + n negative, with 95 % intervals",
        ("group",),
        ("n", "sensitivity", "specificity", "AUROC"),
    )
    rows: Iterable[tuple[str, Figures]] = [("all", evaluation.all), *evaluation.groups.items()]
    for name, figures in rows:
        table.add_row(
            plain(name) or "not stated",
            f"{figures.outcomes[1].n} + {figures.outcomes[0].n}",
            _said(figures.rates.sensitivity),
            _said(figures.rates.specificity),
            _said(figures.auroc) if figures.auroc else "needs both",
        )
    return table


def _show_notes(evaluation: Evaluation, out: Console) -> None:
    """Print what makes the intervals above less than they seem."""
    area = evaluation.all.auroc
    if area is not None and area.lower == area.upper:
        _say(
            out,
            "The AUROC interval is empty because the classes do not overlap here: too few cases to "
            "see an error, not a proof that there is none.",
        )
    analysed = sum(one.probability is not None for one in evaluation.results)
    if evaluation.patients is not None and evaluation.patients < analysed:
        _say(
            out,
            "Some patients have several cases: the AUROC interval allows for it, the others are "
            "narrower than they should be.",
        )


def _predictive(evaluation: Evaluation) -> Table:
    table = _table(
        "Predictive values by prevalence (share of cases)",
        (),
        ("prevalence", "PPV", "NPV"),
    )
    for one in evaluation.predictive:
        table.add_row(f"{one.prevalence:g}", _said(one.positive, 3), _said(one.negative, 3))
    return table


def _calibration(evaluation: Evaluation) -> Table:
    bins = evaluation.calibrations[0].bins
    sizes = sorted({one.n for one in bins})
    each = f"{sizes[0]} to {sizes[-1]}" if len(sizes) > 1 else str(sizes[0])
    table = _table(
        f"Calibration: {len(bins)} bins of {each} images",
        ("classes weigh",),
        ("expected calibration error", "Brier score"),
    )
    for one in evaluation.calibrations:
        name = "the same" if one.balanced else "as in the sample"
        table.add_row(name, f"{one.error:.3f}", f"{one.brier:.3f}")
    return table


def _show_proposals(evaluation: Evaluation, out: Console) -> None:
    """Print a threshold by each rule, or why there is none."""
    n = [evaluation.all.outcomes[label].n for label in LABELS]
    table = _table(
        f"Thresholds for these {n[0]} + {n[1]} cases, to be confirmed on others",
        ("rule",),
        ("threshold", "sensitivity", "specificity"),
    )
    for one in evaluation.proposals:
        if one.rates is not None:
            rates = (_said(one.rates.sensitivity), _said(one.rates.specificity))
            table.add_row(one.rule, f"{one.rates.threshold:.6g}", *rates)
    if table.row_count:
        out.print(table)
    for one in evaluation.proposals:
        if one.refused:
            _say(out, f"No threshold by {one.rule}: {one.refused}")


def _pairs(evaluation: Evaluation) -> Table:
    table = _table(
        "AUROC between groups, n positive + n negative",
        ("positive of", "negative of"),
        ("n", "AUROC"),
    )
    for (yes, no), (many, others, area) in evaluation.pairs.items():
        names = (plain(yes) or "not stated", plain(no) or "not stated")
        table.add_row(*names, f"{many} + {others}", _said(area))
    return table
