"""What the terminal shows at the end of each stage: a table, and where the whole of it lies."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .console import interval, judge_shown, percent, say, signed, table
from .headline import headline

if TYPE_CHECKING:
    from .stages import JobResult

N_ROWS, N_GROUPS = 20, 8


def show_vector(value: dict[str, Any], result: JobResult) -> None:
    """The evidence that the vector separates."""
    rows = [
        ("AUC, system prompt removed", _auc(value, "auc_stripped"), interval(value.get("auc_stripped_interval"))),
        ("  rank p against random directions", _auc(value, "auc_rank_p"), ""),
        ("  95th percentile of random directions", _auc(value, "auc_random_q95"), ""),
        ("AUC with the system prompt", _auc(value, "auc_with_prompt"), ""),
        ("AUC from the words alone (TF-IDF)", _auc(value, "auc_text_only"), ""),
        ("AUC from the length alone", _auc(value, "auc_length_only"), ""),
        ("judge of the rows", judge_shown(value), ""),
    ]
    table(f"{value['trait']} at {value['hook']}", ("measure", "value", "interval"), rows, right=(1,))
    if "neutral" not in value.get("kept_counts", {"neutral": {}}):
        say("no neutral arm: v_up and v_down were not made")
    say(f"vector: {(result.folder / 'vector').resolve()}")


def _auc(value: dict[str, Any], name: str) -> str:
    number = value.get(name)
    return "-" if number is None else f"{number:.3f}"


def show_decomposition(value: dict[str, Any], result: JobResult) -> None:
    """The features with the largest shares."""
    rows = [
        (row["feature"], percent(row.get("share")), signed(row.get("cosine")), signed(row.get("pursuit")), row.get("q_value"))
        for row in value["features"][:N_ROWS]
    ]
    columns = ("feature", "share", "cosine", "pursuit", "q")
    table(f"{value['trait']} in {value['sae']['id']}", columns, rows, right=(0, 1, 2, 3, 4))
    _show_groups((value.get("groups") or {}).get("groups") or [])
    say(f"the SAE's own error: {percent(value['share_error'])} of |v|^2")
    _warn(value)
    say(f"decomposition: {(result.folder / 'decomposition').resolve()}")


def _show_groups(groups: list[dict[str, Any]]) -> None:
    """The largest groups of features that act as one."""
    rows = [
        (" ".join(map(str, group["features"])), percent(group["share"]), interval(group["interval"]), f"{group['cohesion']:.2f}",
         f"{group['p']:.2f}")
        for group in groups[:N_GROUPS]
    ]  # fmt: skip
    if rows:
        table("features that act as one", ("features", "share", "interval", "cohesion", "p"), rows, right=(1, 3, 4))


def show_labels(value: dict[str, Any], result: JobResult) -> None:
    """The labels in words."""
    rows = [
        (row["feature"], row["label"], row["category"], _author(row["author"]), _score(row["score"]))
        for row in value["labels"]
    ]
    table(f"labels for {value['sae']}", ("feature", "label", "category", "author", "score"), rows, right=(0, 4))
    say(f"labels: {(result.folder / 'labels').resolve()}")


def show_report(value: dict[str, Any], result: JobResult) -> None:
    """The table of sub-features, the one-line answer and the path of the report."""
    columns = ("sub-feature", "category", "share", "cosine", "causal effect", "interval", "verified", "label score")
    rows = [_feature_row(row) for row in value["features"][:N_ROWS]]
    name = value["vector"]["trait"]
    table(f"What {name} is made of ({value['vector']['hook']})", columns, rows, right=(2, 3, 4, 7))
    _warn(value)
    say(headline(value))
    say("nothing was left to do" if not result.ran else f"ran {', '.join(result.ran)} in {_seconds(result.seconds)}")
    say(f"report: {value['report']}")


def _feature_row(row: dict[str, Any]) -> tuple[Any, ...]:
    return (
        row["label"] or f"feature {row['feature']} (no label)",
        row["category"] or "-",
        percent(row["share"]),
        signed(row["cosine"], 2),
        signed(row["causal_odd"]),
        interval(row["causal_interval"]),
        {True: "yes", False: "no", None: "-"}[row["verified"]],
        _score(row["label_score"]),
    )


def _score(score: dict[str, Any] | None) -> str:
    return "-" if not score or score.get("value") is None else f"{score['value']:.2f}"


def _author(author: Any) -> str:
    return " ".join(str(author[key]) for key in ("kind", "name") if author.get(key)) if author else "-"


def _warn(value: dict[str, Any]) -> None:
    for warning in value.get("warnings") or ():
        say(f"note: {warning}")


def _seconds(seconds: float) -> str:
    from workbench.base.progress import duration

    return duration(seconds)


VIEWS = {
    "vector": show_vector,
    "decomposition": show_decomposition,
    "labels": show_labels,
    "report": show_report,
}
