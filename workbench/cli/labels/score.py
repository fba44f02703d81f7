"""`workbench labels score`: how well labels tell where their features fire, on held-out contexts of a feature index."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..options import JsonOption, ModelOption, QuietOption, SaeOption, SeedOption

if TYPE_CHECKING:
    from workbench.labeling.contexts.index import FeatureIndex
    from workbench.labeling.contexts.reading import Collection
    from workbench.labeling.labels import FeatureLabel, FeatureRecord
    from workbench.labeling.scores.protocol import Scorer

START_SECONDS = 13.0
READ_PER_SECOND = {"embedding": 1000.0, "sentence": 60.0}  # contexts, on one core; an endpoint's speed is not known
SCORERS = ("embedding", "sentence", "openai", "anthropic", "local")


def score(
    folder: Annotated[Path, typer.Argument(metavar="[FOLDER]", help="A folder of label files.")] = Path("feature_labels"),
    index: Annotated[Path | None, typer.Option("--index", help="A feature index (`workbench features index`).")] = None,
    scorer: Annotated[
        str, typer.Option("--scorer", help="embedding, sentence, openai, anthropic or local: who reads.")
    ] = "embedding",
    task: Annotated[str, typer.Option("--task", help="detection, or fuzzing (not by the embedders).")] = "detection",
    scorer_model: Annotated[
        str | None, typer.Option("--scorer-model", help="Its model: an endpoint's name for it, or what `local` loads.")
    ] = None,
    scorer_url: Annotated[
        str | None, typer.Option("--scorer-url", help="Its endpoint. [default: the provider's own]")
    ] = None,
    controls: Annotated[
        bool, typer.Option("--controls", help="Also score swapped, generic and best one-token labels.")
    ] = False,
    closed_loop: Annotated[
        bool, typer.Option("--closed-loop", help="Also ask the model itself: does a label lead to its feature?")
    ] = False,
    senses: Annotated[
        bool, typer.Option("--senses", help="Also say whether a feature's contexts fall into several clusters.")
    ] = False,
    sae: SaeOption = None,
    model: ModelOption = None,
    seed: SeedOption = None,
    write: Annotated[bool, typer.Option("--write", help="Put the scores into the files. [default: only print them]")] = False,
    plan: Annotated[bool, typer.Option("--plan", help="Print how much would be asked; score nothing.")] = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Score labels on contexts that nobody explained from.

    AUROC and balanced accuracy against three kinds of contexts in which the feature is silent (random, of its decoder neighbours,
    around the same token), with 95% intervals. Every label of a feature is scored, unclear ones too.
    """
    from ..console import emit, reserved_output

    reader = make_scorer(scorer, task, scorer_model, scorer_url)  # a wrong choice is refused before any work
    with reserved_output(as_json, quiet):
        value = run_score(
            folder, index, reader, sae=sae, model=model, seed=seed or 0, controls=controls, loop=closed_loop, senses=senses,
            write=write, plan=plan,
        )  # fmt: skip
    emit(value, as_json=as_json, show=lambda: _show(value))


def register(app: typer.Typer) -> None:
    """Add the command to the group `workbench labels`."""
    app.command("score")(score)


def make_scorer(name: str, task: str, model: str | None = None, url: str | None = None) -> Scorer:
    """The scorer of that name. Raises WorkbenchError for an unknown one, a task that it does not do, a missing model."""
    from workbench.base.errors import WorkbenchError, unknown_name
    from workbench.labeling.scores.embedding import EmbeddingScorer
    from workbench.labeling.scores.language import EndpointScorer, LocalScorer, check_task
    from workbench.labeling.scores.sentences import SentenceScorer

    if name not in SCORERS:
        raise unknown_name("scorer", name, SCORERS)
    check_task(task)
    if name in ("embedding", "sentence"):
        if task != "detection":
            found = f"the task {task!r} for the {name} scorer"
            raise WorkbenchError(found, "detection", "choose another scorer: openai, anthropic or local")
        return EmbeddingScorer() if name == "embedding" else SentenceScorer()
    return LocalScorer(model, task=task) if name == "local" else EndpointScorer(name, task=task, model=model, base_url=url)


def run_score(
    folder: Path,
    index_folder: Path | None,
    scorer: Scorer,
    *,
    sae: str | None = None,
    model: str | None = None,
    seed: int = 0,
    controls: bool = False,
    loop: bool = False,
    senses: bool = False,
    write: bool = False,
    plan: bool = False,
) -> dict[str, Any]:
    """{folder, index, sae, scorer, n_labels, n_scored, labels: [...], controls, closed_loop, senses, written}, or the plan."""
    from workbench.base.errors import WorkbenchError
    from workbench.base.progress import track
    from workbench.labeling.scores.scoring import score as score_one

    if index_folder is None:
        raise WorkbenchError(
            "no feature index is named", "the folder of one", "give --index (`workbench features index` makes one)"
        )
    index = _opened(index_folder, sae)
    records = _records(folder, index)
    collection = index.collection(sorted(records))
    if plan:
        return _plan(records, collection, scorer)
    said = [(record, item) for record in records.values() for item in record.labels]
    scores: dict[tuple[int, int], dict[str, Any] | None] = {}
    with track("Scoring labels", len(said), "labels") as step:
        for record, item in said:
            found = score_one(item, record.feature, collection, scorer, seed=seed).record()
            scores[record.feature, record.labels.index(item)] = found
            step()
    rows = [
        {"feature": record.feature, "label": item.label, "author": dict(item.author),
         "score": scores[record.feature, record.labels.index(item)]}
        for record, item in said
    ]  # fmt: skip
    counted = [record.label for record in records.values() if record.label is not None]
    return {
        "folder": str(folder),
        "index": str(index_folder),
        "sae": index.sae_id,
        "scorer": dict(scorer.description()),
        "n_labels": len(rows),
        "n_scored": sum(row["score"] is not None for row in rows),
        "labels": rows,
        "controls": _controls(counted, collection, scorer, seed) if controls else None,
        "closed_loop": _loop(counted, index, model, seed) if loop else None,
        "senses": _senses(collection, sorted(records), seed) if senses else None,
        "written": _write(folder, records, scores) if write else 0,
    }


def _opened(folder: Path, sae: str | None) -> FeatureIndex:
    from workbench.labeling.contexts.index import FeatureIndex
    from workbench.saes.registry import load_sae

    from ..inputs import find_sae

    index = FeatureIndex.open(folder)
    site = find_sae(sae or index.sae_id, str(index.document["model"]["name"]))
    return FeatureIndex.open(folder, sae=replace(load_sae(site.reference), id=site.id))


def _records(folder: Path, index: FeatureIndex) -> dict[int, FeatureRecord]:
    """The records of the index's SAE. Raises WorkbenchError when there are none."""
    from workbench.base.errors import WorkbenchError
    from workbench.labeling.files.folders import read_folder

    found = read_folder(folder)
    fitting = {r.feature: r for r in found.values() if r.sae_hash == index.sae_hash}
    if not fitting:
        saes = ", ".join(sorted({record.sae_id for record in found.values()})) or "none"
        raise WorkbenchError(
            f"no label in {folder} is of the weights that {index.folder} was read with (labels of: {saes})",
            f"labels of {index.sae_id} ({index.sae_hash[:12]})",
            "name the index of the labels' SAE, or another folder",
        )
    return fitting


def _plan(records: dict[int, FeatureRecord], collection: Collection, scorer: Scorer) -> dict[str, Any]:
    from workbench.labeling.scores.language import EndpointScorer
    from workbench.labeling.scores.prompts import many_prompt
    from workbench.labeling.scores.scoring import examples_for

    n_labels = sum(len(record.labels) for record in records.values())
    sets = {feature: examples_for(scorer, feature, collection) for feature in records}
    plan: dict[str, Any] = {"plan": True, "n_labels": n_labels, "scorer": scorer.kind, "n_requests": 0, "input_tokens": 0}
    plan["n_examples"] = sum(sum(sets[f].n.values()) * len(record.labels) for f, record in records.items())
    speed = READ_PER_SECOND.get(scorer.kind.split("_")[0])
    plan["seconds"] = None if speed is None else round(START_SECONDS + plan["n_examples"] / speed, 1)
    if isinstance(scorer, EndpointScorer):
        for feature, record in records.items():
            examples = [*sets[feature].positives, *(e for group in sets[feature].negatives.values() for e in group)]
            size = scorer.per_request
            for item in record.labels:
                plan["n_requests"] += scorer.n_requests(len(examples))
                parts = (examples[start : start + size] for start in range(0, len(examples), size))
                plan["input_tokens"] += sum(len(many_prompt(item, part, scorer.task)) // 4 for part in parts)
    return plan


def _controls(labels: list[FeatureLabel], collection: Collection, scorer: Scorer, seed: int) -> dict[str, Any]:
    from workbench.labeling.scores.comparison import score_table

    return score_table(labels, collection, scorer, seed=seed).record()


def _loop(labels: list[FeatureLabel], index: FeatureIndex, model: str | None, seed: int) -> dict[str, Any]:
    from workbench.labeling.scores.closed_loop import closed_loop
    from workbench.models.loading import load_model

    assert index.sae is not None
    loaded = load_model(model or str(index.document["model"]["name"]))
    index.check_same(index.sae, loaded)
    return closed_loop(labels, index.sae, loaded, seed=seed).record()


def _senses(collection: Collection, features: list[int], seed: int) -> list[dict[str, Any]]:
    from workbench.base.progress import track
    from workbench.labeling.scores.polysemanticity import senses_of

    rows = []
    with track("Clustering contexts", len(features), "features") as step:
        for feature in features:
            found = senses_of(collection.evidence[feature], collection.background, seed=seed)
            rows.append({"feature": feature, **found.record()})
            step()
    return rows


def _write(
    folder: Path, records: dict[int, FeatureRecord], scores: dict[tuple[int, int], dict[str, Any] | None]
) -> int:
    """How many labels got a score; where it is put, `_with_score` says.

    Scoring takes a while: the files are read again, and what was written to them meanwhile stays, without a score.
    """
    from workbench.labeling.files.folders import root_above, write_records
    from workbench.labeling.files.locking import writing
    from workbench.labeling.files.store import load_label_file, set_folder

    if not records:
        return 0
    sae_id = next(iter(records.values())).sae_id
    root = root_above(folder, sae_id)
    changed, n = {}, 0
    with writing(set_folder(root, sae_id)):
        for feature, record in records.items():
            found = {_said(item): scores[feature, at] for at, item in enumerate(record.labels)}
            now = load_label_file(set_folder(root, sae_id) / f"{feature}.yaml")
            labels = tuple(_with_score(item, found.get(_said(item))) for item in now.labels)
            changed[sae_id, feature] = replace(now, labels=labels)
            n += sum(found.get(_said(item)) is not None for item in now.labels)
        write_records(changed, root)
    return n


def _said(item: FeatureLabel) -> tuple[str, str, tuple[tuple[str, str], ...]]:
    return item.label, item.explanation, tuple(sorted(item.author.items()))


def _with_score(item: FeatureLabel, found: dict[str, Any] | None) -> FeatureLabel:
    """The embedding's score is the headline, else the first one; the others stand beside it, the newest of each kind."""
    if found is None:
        return item
    earlier = {one["kind"]: one for one in (*item.scores, *([item.score] if item.score else ()))}
    first = found if item.score is None or str(found["kind"]).startswith("embedding") else item.score
    kept = {**earlier, found["kind"]: found}
    headline = kept.pop(first["kind"])
    return replace(item, score=headline, scores=tuple(kept.values()))


def _show(value: dict[str, Any]) -> None:
    from ..console import interval, say, table

    if value.get("plan"):
        from ..plan import time_text

        takes = "not known for this scorer" if value["seconds"] is None else time_text(value["seconds"])
        say(f"{value['n_labels']} labels, {value['n_examples']:,} texts; {value['n_requests']} requests, "
            f"about {value['input_tokens']:,} tokens; time: {takes}")  # fmt: skip
        return
    rows = []
    for row in value["labels"]:
        found = row["score"] or {"value": None, "interval": None, "by": {}}
        kinds = [(found["by"].get(kind) or {}).get("value") for kind in ("random", "neighbours", "same_token")]
        rows.append((row["feature"], row["label"], found["value"], interval(found["interval"], 2), *kinds))
    columns = ("feature", "label", "AUROC", "95% interval", "random", "neighbours", "same token")
    table(f"{value['scorer']['kind']} on held-out contexts", columns, rows, right=(0, 2, 3, 4, 5, 6))
    say(f"{value['n_scored']} of {value['n_labels']} labels could be scored; {value['written']} written")
    if value["controls"]:
        _show_controls(value["controls"])
    for row in value["senses"] or ():
        if row["polysemantic"]:
            each = "; ".join(f"{', '.join(sense['words'])} ({sense['n']})" for sense in row["senses"])
            say(f"feature {row['feature']} has several senses (p = {row['p']:.3f}): {each}")
    if value["senses"] is not None:
        say(f"{sum(row['polysemantic'] for row in value['senses'])} of {len(value['senses'])} features have several senses")
    if loop := value["closed_loop"]:
        ends, chance, median = interval(loop["rank1_interval"], 2), f"{loop['chance']:.2f}", f"{loop['median_rank']:.1f}"
        say(f"closed loop: own label first among {loop['n_swapped'] + 1} for {loop['rank1']:.2f} of {loop['n_labels']} features "
            f"{ends}, chance {chance}; median rank {median}")  # fmt: skip


def _show_controls(value: dict[str, Any]) -> None:
    from ..console import interval, table

    rows = []
    for name, column in ((name, column) for name, column in value["columns"].items() if column):
        for sort, found in column["auroc"].items():
            gap = column["shipped_minus"].get(sort) or {"value": None, "interval": None}
            own = (found["value"], interval(found["interval"], 2))
            rows.append((name, sort, column["n"], *own, gap["value"], interval(gap["interval"], 2)))
    columns = ("negatives", "labels", "features", "AUROC", "95% interval", "shipped minus", "95% interval")
    table("beside other labels", columns, rows, right=(2, 3, 4, 5, 6))
