"""`workbench labels explain`: an explainer puts features into words, in a label folder of its own."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..options import ExplainerModelOption, ExplainerOption, JsonOption, ModelOption, QuietOption, SaeOption

if TYPE_CHECKING:
    from workbench.labeling.contexts.reading import Collection
    from workbench.personas.traits import Trait

    from ..explainer_choice import ExplainerChoice

DECOMPOSITION = Path("decomposition") / "decomposition.json"
FOLDER = "explained"
START_SECONDS, FEATURE_SECONDS = 13.0, 0.15  # of the offline explainer with its scores, on one core


def explain(
    source: Annotated[
        Path,
        typer.Argument(metavar="RUN_OR_INDEX", help="A run folder with a decomposition, or a feature index."),
    ],
    explainer: ExplainerOption = None,
    explainer_model: ExplainerModelOption = None,
    url: Annotated[
        str | None,
        typer.Option(
            "--url", "--explainer-url", help="The explainer's endpoint. [default: the provider's own]"
        ),
    ] = None,
    price_in: Annotated[
        float | None, typer.Option("--price-in", help="Price of a million tokens sent.")
    ] = None,
    price_out: Annotated[
        float | None, typer.Option("--price-out", help="Price of a million tokens written.")
    ] = None,
    max_cost: Annotated[
        float | None,
        typer.Option("--max-cost", help="Refuse, before anything is sent, what may cost more than this."),
    ] = None,
    max_tokens: Annotated[
        int | None,
        typer.Option(
            "--max-tokens", min=16, help="Longest answer, thinking included. [default: 400; local: 200]"
        ),
    ] = None,
    features: Annotated[
        str | None,
        typer.Option(
            "--features", help="Which, as in 12,88,907. [default: a run's largest, an index's of --trait]"
        ),
    ] = None,
    n: Annotated[int, typer.Option("--n", min=1, help="How many, where --features does not say.")] = 30,
    trait: Annotated[
        str | None,
        typer.Option("--trait", help="Whose categories they are sorted into. [default: the run's]"),
    ] = None,
    score: Annotated[
        bool, typer.Option("--score/--no-score", help="Score each label on held-out contexts.")
    ] = True,
    sae: SaeOption = None,
    model: ModelOption = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Label folder to write to. [default: explained/ in the source]"),
    ] = None,
    plan: Annotated[
        bool, typer.Option("--plan", help="Print what explaining would take and cost; send nothing.")
    ] = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Put features into words.

    By an endpoint, by a local chat model, or offline by statistics. Reads the contexts of the half that explains, estimates the
    cost, asks, scores on the other half and writes one label file per feature, status "proposed". Answers are kept: run again,
    it goes on where it stopped and asks for nothing twice.
    """
    from workbench.base.settings import setting

    from ..console import emit, reserved_output
    from ..explainer_choice import ExplainerChoice

    name = str(setting("explainer", explainer, "offline"))
    choice = ExplainerChoice(name, explainer_model, url, price_in, price_out, max_cost, max_tokens)
    choice.identity()  # a wrong choice is refused before any work
    with reserved_output(as_json, quiet):
        material = _material(source, _numbers(features), n, trait, sae, model)
        value = _explained(material, choice, source / FOLDER if out is None else out, score=score, plan=plan)
    emit(value, as_json=as_json, show=lambda: _show(value))
    if value.get("unanswered"):
        raise typer.Exit(1)


def register(app: typer.Typer) -> None:
    """Add the command to the group `workbench labels`."""
    app.command("explain")(explain)


@dataclass(frozen=True)
class _Material:
    features: list[int]
    collection: Collection
    sae_id: str
    sae_hash: str
    trait: Trait | None


# ---------------------------------------------------------------------------------------------------- what is read


def _numbers(text: str | None) -> list[int] | None:
    from workbench.base.errors import WorkbenchError

    if text is None:
        return None
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not parts or not all(part.isascii() and part.isdecimal() and len(part) <= 9 for part in parts):
        raise WorkbenchError(
            f"--features {text[:80]!r}",
            "feature numbers with commas between them",
            "for instance: --features 12,88",
        )
    return list(dict.fromkeys(map(int, parts)))


def _material(
    source: Path, features: list[int] | None, n: int, trait: str | None, sae: str | None, model: str | None
) -> _Material:
    from workbench.base.errors import WorkbenchError
    from workbench.labeling.contexts.opening import KIND
    from workbench.personas.traits import load_trait

    owner = None if trait is None else load_trait(trait)
    if (source / DECOMPOSITION).is_file():
        return _of_run(source, features, n, owner, sae, model)
    if (source / f"{KIND}.json").is_file():
        return _of_index(source, features, n, owner, sae, model)
    raise WorkbenchError(
        f"{source} holds neither a decomposition nor a feature index",
        "a run folder of `workbench decompose`, or a folder of `workbench features index`",
        "make one of them first, or check the path",
    )


def _of_run(
    run: Path, features: list[int] | None, n: int, trait: Trait | None, sae: str | None, model: str | None
) -> _Material:
    from workbench.decomposition.result import Decomposition
    from workbench.labeling.label import check_same_sae, evidence_for, features_to_label
    from workbench.personas.vectors import PersonaVector

    parts = Decomposition.load(run / DECOMPOSITION.parent)
    loaded_model, loaded_sae = _loaded(parts.vector["model"], sae or str(parts.sae["id"]), model)
    check_same_sae(parts, loaded_sae)
    stored = run / "vector"
    vector = PersonaVector.load(stored) if (stored / "persona_vector.json").is_file() else None
    wanted = features or features_to_label(parts, n)
    collection = evidence_for(wanted, loaded_sae, loaded_model, vector=vector)
    return _Material(
        wanted, collection, loaded_sae.id, loaded_sae.weights_hash, trait or _installed(parts.trait)
    )


def _installed(name: str) -> Trait | None:
    """The trait of a run, None (and a note) when it is not installed here: its labels get no categories."""
    from workbench.personas.traits import list_traits, load_trait

    from ..console import note

    if name in list_traits():
        return load_trait(name)
    note(
        f"the trait {name} is not installed here: labels get no categories (name a trait or its folder with --trait)"
    )
    return None


def _of_index(
    folder: Path, features: list[int] | None, n: int, trait: Trait | None, sae: str | None, model: str | None
) -> _Material:
    from workbench.base.errors import WorkbenchError
    from workbench.labeling.contexts.index import FeatureIndex

    index = FeatureIndex.open(folder)
    if features is None and trait is None:
        found = f"all {index.d_sae} features of an index"
        raise WorkbenchError(found, "some of them", "give --features, or --trait for those of a trait")
    if features is None and trait is not None:
        features = [row.feature for row in index.for_trait(trait.name, n=n)]
    loaded_model, loaded_sae = _loaded(index.document["model"], sae or index.sae_id, model)
    opened = FeatureIndex.open(folder, model=loaded_model, sae=loaded_sae)
    return _Material(
        features or [], opened.collection(features or []), loaded_sae.id, loaded_sae.weights_hash, trait
    )


def _loaded(known: dict[str, Any], sae: str, model: str | None) -> tuple[Any, Any]:
    """(model, SAE), refused when the model's weights are not those that were read before."""
    from workbench.base.errors import WorkbenchError
    from workbench.models.loading import load_model
    from workbench.saes.registry import load_sae

    from ..inputs import find_sae

    site = find_sae(sae, model or str(known["name"]))
    loaded = load_model(model or str(known["name"]))
    if known.get("weights_hash") not in (None, loaded.weights_hash):
        raise WorkbenchError(
            f"the weights of {loaded.name} are not those that this was made with",
            f"{known['name']} ({str(known['weights_hash'])[:12]})",
            "name the model that it was made with (--model)",
        )
    return loaded, replace(load_sae(site.reference), id=site.id)


# ---------------------------------------------------------------------------------------------------- what is done


def _explained(
    material: _Material, choice: ExplainerChoice, out: Path, *, score: bool, plan: bool
) -> dict[str, Any]:
    from workbench.labeling.explainers.endpoint import EndpointExplainer
    from workbench.labeling.files.store import save_labels, set_folder
    from workbench.labeling.label import explained_labels
    from workbench.labeling.labels import LabelSet

    set_folder(out, material.sae_id)  # a place that cannot be written to is refused before anybody is asked
    explainer = choice.make(material.collection)
    told = {
        "sae": material.sae_id,
        "explainer": explainer.name,
        "n_features": len(material.features),
        "estimate": None,
        "seconds": START_SECONDS + FEATURE_SECONDS * len(material.features) if explainer.name == "offline" else None,
    }
    if isinstance(explainer, EndpointExplainer):
        evidence = [material.collection.evidence[feature] for feature in material.features]
        told["estimate"] = explainer.estimate(evidence).to_json()
    if plan:
        return told
    made, unanswered = explained_labels(
        material.features, material.collection, explainer, trait=material.trait, score=score
    )
    labels = LabelSet(material.sae_id, material.sae_hash, made)
    save_labels(labels, out)
    n_unclear = sum(item.label.startswith("unclear") for item in labels)
    rows = [row | {"confidence": labels[row["feature"]].confidence} for row in labels.table()]
    return {**told, "author": dict(explainer.author), "n_labels": len(labels), "n_unclear": n_unclear, "unanswered": unanswered,
            "labels": rows, "folder": str(out)}  # fmt: skip


def _show(value: dict[str, Any]) -> None:
    from ..console import say, table

    if "labels" not in value:
        _show_plan(value)
        return
    rows = [
        (r["feature"], r["label"], r["category"], r["confidence"], (r["score"] or {}).get("value"))
        for r in value["labels"]
    ]
    author = value["author"]
    table(f"labels by {author['name']} ({author['kind']})", ("feature", "label", "category", "confidence", "score"), rows,
          right=(0, 3, 4))  # fmt: skip
    say(f"{value['n_labels']} labels, {value['n_unclear']} of them unclear, in {value['folder']}")
    if value["unanswered"]:
        listed = ", ".join(map(str, value["unanswered"][:10]))
        say(
            f"no answer for {len(value['unanswered'])} features ({listed}): run again, nothing else is asked again"
        )


def _show_plan(value: dict[str, Any]) -> None:
    from ..console import say
    from ..plan import time_text

    expected = value["estimate"]
    if expected is None:
        say(
            f"{value['n_features']} features; the explainer {value['explainer']!r} sends nothing and costs nothing; time: "
            + ("not known for this model" if value["seconds"] is None else time_text(value["seconds"]))
        )
        return
    priced = expected["most_cost"] is not None
    cost = f"at most {expected['most_cost']:.4f}" if priced else "unknown: no prices given"
    say(f"{expected['n_requests']} requests for {value['n_features']} features, about {expected['input_tokens']:,} tokens in "
        f"and {expected['output_tokens']:,} out; cost {cost}")  # fmt: skip
