"""Results as tables in Markdown, for the model card."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from thoracle.evaluate.metrics import Estimate

Row = Sequence[Any]


def table(head: Row, rows: Iterable[Row]) -> str:
    """Return a table; estimates get their interval, other numbers three decimals."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell(value) for value in line) + " |" for line in lines)


def cell(value: Any) -> str:
    """Return a value as a table says it; nothing for ``None``."""
    if value is None:
        return ""
    if isinstance(value, Estimate):
        return f"{value.value:.3f} ({value.lower:.3f} to {value.upper:.3f})"
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def overview(folds: Mapping[str, Mapping[str, Any]]) -> str:
    """Return one line for each fold."""
    head = (
        "fold",
        "n (COVID-19)",
        "AUROC, mean of pairs",
        "worst pair",
        "against other pneumonia",
        "sensitivity",
        "specificity",
        "indeterminate, COVID-19",
        "indeterminate, others",
        "ECE",
        "ECE, classes weighing the same",
    )
    return table(head, [_fold_row(name, fold) for name, fold in folds.items()])


def _fold_row(name: str, fold: Mapping[str, Any]) -> Row:
    worst = fold["worst pair"]
    return (
        name,
        f"{fold['n']} ({fold['positive']})",
        fold["mean of pairs"],
        f"{cell(worst['auroc'])} {worst['positive']}, {worst['negative']}" if worst else None,
        fold["against other pneumonia"],
        fold["sensitivity"],
        fold["specificity"],
        *(fold["indeterminate"][label].share_indeterminate for label in (1, 0)),
        fold["calibration error"],
        fold["calibration error, balanced"],
    )


def unseen(result: Mapping[str, Any]) -> str:
    """Return the mean and the worst of all pairs of sources that training did not see."""
    worst = result["worst"]
    return (
        f"Over all {result['pairs']} pairs of sources left out: mean AUROC {result['mean']:.3f}, "
        f"worst {cell(worst['auroc'])} ({worst['positive']} against {worst['negative']}, "
        f"fold {worst['fold']})."
    )


def pairs(fold: Mapping[str, Any]) -> str:
    """Return the AUROC of each pair of a fold, with the thumbnail model's where there is one."""
    head = ["COVID-19", "others", "n", "AUROC"]
    thumbnails = [row.get("thumbnail auroc") for row in fold["pairs"]]
    rows = [
        [
            row["positive"],
            row["negative"],
            f"{row['n positive']} + {row['n negative']}",
            row["auroc"],
        ]
        for row in fold["pairs"]
    ]
    if any(thumbnails):
        head.append("AUROC of 16 x 16 thumbnails")
        rows = [[*row, value] for row, value in zip(rows, thumbnails, strict=True)]
    return table(head, rows)


def kinds(fold: Mapping[str, Any]) -> str:
    """Return what is called right of each source and finding."""
    head = ("source and finding", "n", "sensitivity", "specificity", "indeterminate")
    names = ("n", "sensitivity", "specificity", "indeterminate")
    return table(head, [[kind, *(row[n] for n in names)] for kind, row in fold["kinds"].items()])


def sources(fold: Mapping[str, Any]) -> str:
    """Return how well the score tells two sources of one finding apart."""
    head = ("finding", "scores higher if above 0.5", "than", "n", "AUROC")
    names = ("finding", "higher", "lower", "n", "auroc")
    return table(head, [[row[name] for name in names] for row in fold["between sources"]])


def subgroups(fold: Mapping[str, Any]) -> str:
    """Return the results of each subgroup."""
    names = ("positive", "negative", "sensitivity", "specificity", "auroc")
    head = ("criterion", "subgroup", "COVID-19", "others", *names[2:4], "AUROC", "made of")
    rows = [
        [row["criterion"], row["subgroup"], *(row[n] for n in names), ", ".join(row["sources"])]
        for row in fold["subgroups"]
    ]
    return table(head, rows)


def blackened(result: Mapping[str, Mapping[str, Any]]) -> str:
    """Return what is left of the model, and of each view, when a part of the image is black."""
    head = ("image", "n (COVID-19)", "AUROC", "whole alone", "lungs alone", "refused by the gate")
    rows = []
    for name, row in result.items():
        estimates = [row["auroc"], *row["auroc of each view"], row["refused"]]
        rows.append([name, f"{row['n']} ({row['positive']})", *map(_estimate, estimates)])
    return table(head, rows)


def faithfulness(result: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the gains of each saliency map over random orders."""
    head = ("map", "n", "deletion", "random", "gain", "insertion", "random", "gain")
    names = (
        "n",
        "deletion",
        "random_deletion",
        "deletion gain",
        "insertion",
        "random_insertion",
        "insertion gain",
    )
    return table(
        head, [[name, *(_estimate(row[n]) for n in names)] for name, row in result.items()]
    )


def _estimate(value: Any) -> Any:
    """Return an estimate as it was before it was written as JSON."""
    return Estimate(**value) if isinstance(value, Mapping) else value
