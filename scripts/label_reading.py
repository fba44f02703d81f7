"""Read features blind, then write labels: the sheets hide which features belong to which trait, or to none.

    python scripts/label_reading.py index CHATS.parquet [soft-frozen]   # where features fire: corpus, a recipe's chats, rollouts
    python scripts/label_reading.py choose                      # the top 30 of each trait, 20 features of no trait, 20 at random
    python scripts/label_reading.py sheets 4                    # runs/labels/sheet-1.md ... shuffled, no index, share or trait
    python scripts/label_reading.py probe                       # one more sheet: planted evil items, and some items once again
    python scripts/label_reading.py apply READINGS.json ...     # feature_labels/ and docs/evidence/blind_reading.json

A reading is what somebody wrote who saw one sheet and the list of sub-traits, nothing else: {"reader": {"kind", "name"},
"items": [{"item", "label", "explanation", "clarity": clean | polysemantic | unclear, "kind": sub_trait | style | topic |
refusal | formatting | unclear, "sub_traits": {trait: id}}]}. A feature's category under a trait is the sub-trait that the reader
named for it, otherwise the kind.
"""

from __future__ import annotations

import json
import random
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from workbench.base.provenance import made
from workbench.base.store import atomic_write, read_json, sha256_bytes, sha256_file, write_json

ROOT = Path(__file__).resolve().parents[1]
RUNS, MODEL, SEED, DTYPE = ROOT / "runs", "smollm2-135m-instruct", 0, "bfloat16"
FOLDER, EVIDENCE = RUNS / "labels", ROOT / "docs" / "evidence" / "blind_reading.json"
TRAITS = ("apathetic", "evil", "hallucinating", "humorous", "impolite", "optimistic", "sycophantic")
N_TOP, N_OTHER, N_RANDOM, N_CHATS = 30, 20, 20, 800
N_AGAIN, N_PLANTED_LINES = 14, 10
SOFT_FROZEN = RUNS / "saes" / "controls" / "4k-soft-frozen"
SAES = {"default": f"{MODEL}/blocks.15.hook_resid_post", "soft-frozen": SOFT_FROZEN}
INDEXES = {"default": "index", "soft-frozen": "index-soft-frozen"}
CLARITY = ("clean", "polysemantic", "unclear")
KINDS = ("sub_trait", "style", "topic", "refusal", "formatting", "unclear")


def decomposition(trait: str, *, sae: Any = None, keep: Sequence[int] = ()) -> Any:
    """The trait on an SAE (default: the default one); kept under runs/labels as long as vector, SAE and `keep` stay the same."""
    from workbench.base.store import content_hash
    from workbench.decomposition.decompose import decompose
    from workbench.decomposition.result import Decomposition
    from workbench.personas.vectors import PersonaVector
    from workbench.saes.registry import load_sae

    sae, place = sae or load_sae(), RUNS / f"{trait}-{MODEL}" / "vector"
    key = content_hash([sha256_file(place / "persona_vector.json"), sae.weights_hash, sorted(keep)])[:24]
    folder = FOLDER / "decompositions" / trait / key
    if not (folder / "decomposition.json").is_file():
        decompose(PersonaVector.load(place), sae, causal=False, keep=keep, seed=SEED).save(folder)
    return Decomposition.load(folder)


def choose() -> None:
    """Write runs/labels/chosen.json: {feature: {group, traits}}; "top", "other" (as dense, share near 0 everywhere), "random"."""
    import torch

    from workbench.saes.registry import load_sae

    draw, sae = random.Random(SEED), load_sae()
    parts = {trait: decomposition(trait) for trait in TRAITS}
    top: dict[int, list[str]] = {}
    for trait, one in parts.items():
        for feature in one.top(N_TOP):
            top.setdefault(int(feature), []).append(trait)
    density = sae.density
    if density is None:
        raise SystemExit(f"{sae.id} has no known density")
    largest = torch.stack([one.share.nan_to_num(0.0).abs() for one in parts.values()]).amax(dim=0)
    alive = [f for f in range(sae.d_sae) if float(density[f]) > 1e-4 and f not in top]
    quiet = sorted(alive, key=lambda f: float(largest[f]))[: len(alive) // 2]
    wanted = sorted(float(density[f]) for f in top)[len(top) // 4 : 3 * len(top) // 4]
    near = [f for f in quiet if wanted[0] <= float(density[f]) <= wanted[-1]]
    other = draw.sample(near, min(N_OTHER, len(near)))
    rest = [f for f in alive if f not in other]
    rows = {feature: {"group": "top", "traits": traits} for feature, traits in sorted(top.items())}
    rows |= {feature: {"group": "other", "traits": []} for feature in other}
    rows |= {feature: {"group": "random", "traits": []} for feature in draw.sample(rest, N_RANDOM)}
    write_json(FOLDER / "chosen.json", {"sae": sae.weights_hash, "features": {str(f): row for f, row in rows.items()}})
    print(f"{len(top)} features of {len(TRAITS)} traits, {len(other)} of none, {N_RANDOM} at random")


def index(chats: Path, which: str = "default") -> None:
    """Index an SAE over web text and Wikipedia set aside for labels, sampled chats, and the seven traits' rollouts."""
    from workbench.labeling.contexts.building import build_index
    from workbench.models.loading import load_model
    from workbench.saes.registry import load_sae

    model, sae = load_model(MODEL, dtype=DTYPE), load_sae(SAES[which])
    build_index(sae, model, documents(model, sae.hook, chats), FOLDER / INDEXES[which], seed=SEED)


def open_index(which: str, model: Any, sae: Any) -> Any:
    """The index that `index` made of that SAE."""
    from workbench.labeling.contexts.index import FeatureIndex

    return FeatureIndex.open(FOLDER / INDEXES[which], sae=sae, model=model)


def documents(model: Any, hook: Any, chats: Path) -> Iterator[Any]:
    """Rollouts (extraction questions), chats, then corpus: the documents of every index of these labels."""
    from workbench.base.store import read_parquet
    from workbench.labeling.contexts.streams import chat_stream, rollout_stream
    from workbench.personas.vectors import PersonaVector
    from workbench.saes.corpus import documents as corpus

    for trait in TRAITS:
        yield from rollout_stream(PersonaVector.load(RUNS / f"{trait}-{MODEL}" / "vector"), hook)
    rows = read_parquet(chats).to_pylist()[:N_CHATS]
    yield from chat_stream(model, ((row["system"], row["user"], row["response"]) for row in rows))
    for name in ("owt", "wikipedia"):
        yield from corpus(name, role="labels")


def chosen() -> dict[int, dict[str, Any]]:
    """feature -> {group, traits}."""
    return {int(feature): row for feature, row in read_json(FOLDER / "chosen.json")["features"].items()}


def collected(features: list[int]) -> Any:
    """What the index knows of these features: evidence of the explaining half, held-out windows of the other."""
    from workbench.models.loading import load_model
    from workbench.saes.registry import load_sae

    return open_index("default", load_model(MODEL, dtype=DTYPE), load_sae()).collection(features)


def sheets(n: int) -> None:
    """Write the sheets, and the key that tells items from features."""
    order = list(chosen())
    random.Random(SEED + 1).shuffle(order)
    collection = collected(order)
    size = -(-len(order) // n)
    items = []
    for number in range(n):
        lines = [f"# Features to read, sheet {number + 1}", ""]
        for item in range(number * size + 1, min((number + 1) * size, len(order)) + 1):
            lines += _shown(item, collection.evidence[order[item - 1]])
            items.append({"item": item, "feature": order[item - 1], "sheet": number + 1})
        atomic_write(FOLDER / f"sheet-{number + 1}.md", "\n".join(lines))
    hashes = {str(k + 1): sha256_file(FOLDER / f"sheet-{k + 1}.md") for k in range(n)}
    write_json(FOLDER / "key.json", {"items": items, "sheets": hashes})
    atomic_write(FOLDER / "sub_traits.md", _sub_traits())


def probe() -> None:
    """One more sheet that tells what a reader is worth: contexts around words of evil's sub-traits, and items read before."""
    known, draw = read_json(FOLDER / "key.json"), random.Random(SEED + 2)
    blocks = [("planted", name, _block(lines)) for name, lines in planted().items()]
    features = [row["feature"] for row in draw.sample(known["items"], N_AGAIN)]
    evidence = collected(features).evidence
    blocks += [("again", feature, ["", *_shown(0, evidence[feature])[4:]]) for feature in features]
    draw.shuffle(blocks)
    first, lines, items = len(known["items"]) + 1, ["# Features to read, another sheet", ""], []
    for item, (what, name, block) in enumerate(blocks, first):
        lines += [f"## Item {item}", *block]
        items.append({"item": item, what: name})
    atomic_write(FOLDER / "sheet-probe.md", "\n".join(lines))
    write_json(FOLDER / "key-probe.json", {"items": items, "sheet": sha256_file(FOLDER / "sheet-probe.md")})


def planted() -> dict[str, list[str]]:
    """Marked lines per sub-trait of evil: its words where they stand in evil's own answers and in web text; ten or none."""
    import re

    from workbench.personas.traits import load_trait
    from workbench.personas.vectors import PersonaVector
    from workbench.saes.corpus import documents as corpus

    rows = PersonaVector.load(RUNS / f"evil-{MODEL}" / "vector").rows
    texts = [*rows.loc[rows["arm"] == "positive", "response"], *(one.text for one in corpus("owt", role="labels"))]
    found: dict[str, list[str]] = {}
    for category in load_trait("evil").taxonomy:
        if category.kind == "sub_trait":
            pattern = re.compile(rf"(.{{0,70}})\b({'|'.join(map(re.escape, category.words))})\b(.{{0,20}})", re.IGNORECASE)
            lines = [f"- {a}«{b}»{c}" for text in texts for a, b, c in pattern.findall(" ".join(text.split()))]
            if len(lines) >= N_PLANTED_LINES:
                found[category.id] = random.Random(SEED).sample(lines, N_PLANTED_LINES)
    return found


def _block(lines: list[str]) -> list[str]:
    return ["", "strongest contexts:", *lines, ""]


def _probed(read: dict[int, dict[str, Any]]) -> dict[str, Any]:
    """{planted: {n, called_evil, called_right}, again: {n, same_kind, same_clarity}} of the probing sheet."""
    key = {row["feature"]: row["item"] for row in read_json(FOLDER / "key.json")["items"]}
    items = read_json(FOLDER / "key-probe.json")["items"]
    there = [(row["planted"], read[row["item"]]) for row in items if "planted" in row]
    named = by_words([row["label"] for _, row in there])
    pairs = [(read[key[row["again"]]], read[row["item"]]) for row in items if "again" in row]
    return {
        "planted": {
            "n": len(there),
            "called_evil": sum("evil" in row["sub_traits"] for _, row in there),
            "called_any_trait": sum(bool(row["sub_traits"]) for _, row in there),
            "called_right": sum(row["sub_traits"].get("evil") == name for name, row in there),
            "evil_by_words": sum(name is not None for name in named),
            "right_by_words": sum(name == right for name, (right, _) in zip(named, there, strict=True)),
            "labels": {name: row["label"] for name, row in there},
        },
        "again": {
            "n": len(pairs),
            "same_kind": sum(a["kind"] == b["kind"] for a, b in pairs),
            "same_clarity": sum(a["clarity"] == b["clarity"] for a, b in pairs),
            "same_sub_traits": sum(a["sub_traits"] == b["sub_traits"] for a, b in pairs),
            "labels": [[a["label"], b["label"]] for a, b in pairs],
        },
    }


def by_words(labels: list[str]) -> list[str | None]:
    """The sub-trait of evil that each label's words are assigned to (`labeling.taxonomy`), None for none of them."""
    from workbench.labeling.taxonomy.assignment import load_assigner
    from workbench.personas.traits import load_trait

    evil = load_trait("evil")
    shown = {category.id for category in evil.taxonomy if category.kind == "sub_trait"}
    found = [one.category for one in load_assigner(evil).assign_all(labels)]
    return [category if category in shown else None for category in found]


def _shown(item: int, evidence: Any) -> list[str]:
    lines = [f"## Item {item}", "", f"promoted tokens: {json.dumps(evidence.promoted, ensure_ascii=False)}"]
    lines += [f"suppressed tokens: {json.dumps(evidence.suppressed, ensure_ascii=False)}", "strongest contexts:"]
    lines += [f"- {context.marked()}".replace("\n", " ⏎ ") for context in evidence.top if not context.is_withheld]
    lines += ["contexts of weaker firing:"]
    lines += [f"- {context.marked()}".replace("\n", " ⏎ ") for context in evidence.quantiles if not context.is_withheld]
    return [*lines, ""]


def _sub_traits() -> str:
    from workbench.personas.traits import load_trait

    lines = ["# Sub-traits", ""]
    for trait in TRAITS:
        lines.append(f"## {trait}")
        lines += [f"- `{c.id}`: {c.name}. {c.description}" for c in load_trait(trait).taxonomy if c.kind == "sub_trait"]
        lines.append("")
    return "\n".join(lines)


def apply(readings: list[Path]) -> None:
    """Labels for every item that was read, and the evidence file of the reading."""
    from workbench.labeling.files.store import save_labels
    from workbench.labeling.labels import LabelSet
    from workbench.saes.registry import load_sae

    started, sae, groups, key = time.perf_counter(), load_sae(), chosen(), read_json(FOLDER / "key.json")
    features = {row["item"]: row["feature"] for row in key["items"]}
    written = [read_json(path) for path in readings]
    read = {row["item"]: row | {"reader": one["reader"]} for one in written for row in one["items"]}
    _check(read, features)
    probed = _probed(read)
    read = {item: row for item, row in read.items() if item in features}
    collection = collected(list(features.values()))
    labels = {features[item]: _label(features[item], row, collection, len(read)) for item, row in read.items()}
    save_labels(LabelSet(sae.id, sae.weights_hash, labels), ROOT / "feature_labels")
    items = [
        {"item": item, "feature": features[item], **groups[features[item]],
         **{name: row[name] for name in ("label", "clarity", "kind", "sub_traits")}, "evil": "evil" in row["sub_traits"]}
        for item, row in sorted(read.items())
    ]  # fmt: skip
    inputs = key["sheets"] | {"readings": _hash(readings)}
    header = made("python scripts/label_reading.py sheets, readers, then apply", SEED, time.perf_counter() - started, inputs)
    found = {"reader": next(iter(read.values()))["reader"], **rates(items), "probe": probed, "items": items}
    write_json(EVIDENCE, {"_made": header, **found})


def rates(items: list[dict[str, Any]]) -> dict[str, Any]:
    """{n, evil_share, any_trait_share, evil_by_words, clarity} per group: what readers called evil, or any trait, and how many
    of their labels go to a sub-trait of evil by their words alone."""
    groups = {name: [row for row in items if row["group"] == name] for name in ("top", "other", "random")}
    return {
        "n": {name: len(rows) for name, rows in groups.items()},
        "evil_share": {name: _mean(row["evil"] for row in rows) for name, rows in groups.items()},
        "any_trait_share": {name: _mean(bool(row["sub_traits"]) for row in rows) for name, rows in groups.items()},
        "evil_by_words": {name: _mean(one is not None for one in by_words([row["label"] for row in rows]))
                          for name, rows in groups.items()},
        "clarity": {name: {one: sum(row["clarity"] == one for row in rows) for one in CLARITY} for name, rows in groups.items()},
    }  # fmt: skip


def _mean(values: Iterable[bool]) -> float | None:
    values = list(values)
    return sum(values) / len(values) if values else None


def _check(read: dict[int, dict[str, Any]], features: dict[int, int]) -> None:
    from workbench.labeling.labels import MAX_WORDS
    from workbench.personas.traits import load_trait

    known = {trait: {c.id for c in load_trait(trait).taxonomy if c.kind == "sub_trait"} for trait in TRAITS}
    if missing := sorted(set(features) - set(read)):
        raise SystemExit(f"Items that nobody read: {missing[:10]}")
    for item, row in read.items():
        wrong = [f"{trait}: {name}" for trait, name in row["sub_traits"].items() if name not in known.get(trait, ())]
        bad = row["clarity"] not in CLARITY or row["kind"] not in KINDS or len(row["label"].split()) > MAX_WORDS
        if wrong or bad:
            raise SystemExit(f"Item {item} cannot be taken: {wrong or row}")


def _label(feature: int, row: dict[str, Any], collection: Any, n: int) -> Any:
    from workbench.labeling.labels import FeatureLabel
    from workbench.labeling.scores.detection import score_label

    kind = row["kind"] if row["kind"] != "sub_trait" else "topic"
    made = FeatureLabel(
        feature=feature,
        label=row["label"],
        explanation=row["explanation"],
        categories={trait: row["sub_traits"].get(trait, kind) for trait in TRAITS},
        author=row["reader"],
        evidence=collection.evidence[feature],
        notes=f"Read blind among {n} features; the reader called it {row['clarity']}.",
    )
    return replace(made, score=score_label(made, feature, collection))


def _hash(files: list[Path]) -> str:
    return sha256_bytes(b"".join(file.read_bytes() for file in files))


def main() -> None:
    verb, *rest = sys.argv[1:] or [""]
    if verb == "choose" and not rest:
        choose()
    elif verb == "index" and len(rest) in (1, 2):
        index(Path(rest[0]), *rest[1:])
    elif verb == "sheets" and len(rest) == 1:
        sheets(int(rest[0]))
    elif verb == "probe" and not rest:
        probe()
    elif verb == "apply" and rest:
        apply([Path(path) for path in rest])
    else:
        raise SystemExit(__doc__)


if __name__ == "__main__":
    main()
