"""`workbench sae eval`: the evaluation card of an SAE, with persona data from finished runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.base.errors import WorkbenchError

from ..console import interval
from ..plan import FORWARD_TOKENS_PER_SECOND, SAMPLED_TOKENS_PER_SECOND
from .memory import reading_gib, saes_gib, shape_at_hand

if TYPE_CHECKING:
    from workbench.models.loading import Model
    from workbench.models.prompts import ChatTokens
    from workbench.saes.evaluation.card import CardSettings
    from workbench.saes.evaluation.personas import PersonaRollouts
    from workbench.saes.interface import SparseAutoencoder

MAX_CELLS = 5
MAKE_SHARE = 0.6
ROLLOUT_TOKENS = 95  # of one response with its question, on average
HALF = 0.55  # of a whole pass, for passes that stop at a middle block


@dataclass(frozen=True)
class EvaluationJob:
    """An SAE, the model to run it in, the finished persona runs to read, and how much of everything."""

    sae: str
    model: str
    runs: tuple[Path, ...] = ()
    """run folders whose rollouts are probed"""
    vectors: tuple[Path, ...] = ()
    """run folders whose vectors are expressed as well"""
    controls: tuple[str, ...] = ()
    other_seeds: tuple[str, ...] = ()
    options: dict[str, Any] = field(default_factory=dict)
    """settings that differ from the defaults of `CardSettings`"""
    persona_rows: int = 400
    dtype: str = "float32"
    device: str | None = None

    @property
    def settings(self) -> CardSettings:
        """How much is read."""
        from workbench.saes.evaluation.card import CardSettings

        return CardSettings(**self.options)

    def plan(self) -> dict[str, Any]:
        """The steps with rough seconds on two cores; nothing is loaded."""
        from workbench.saes.evaluation.card import N_DEFAULT_SETS

        one = self.settings
        copies = 3 + len(self.controls)
        n_sets = N_DEFAULT_SETS + 3 if one.probe_sets is None else len(one.probe_sets)
        forward = 1 / FORWARD_TOKENS_PER_SECOND
        steps = {
            "sample chats": one.chats * 48 / SAMPLED_TOKENS_PER_SECOND,
            "fitness on text, chats and rollouts": copies * one.tokens * (4 + len(self.runs)) * forward,
            "sample of tokens": HALF * one.sample_tokens * forward,
            "labelled sets": HALF * n_sets * one.probe_rows * 0.7 * one.probe_tokens * forward,
            "persona probing": len(self.runs) * (HALF * self.persona_rows * ROLLOUT_TOKENS * forward + 40),
            "expression, splitting, absorption": 60.0 * (1 + len(self.controls)),
        }
        return {
            "what": f"the evaluation card of {self.sae}",
            "folder": None,
            "steps": [{"step": name, "seconds": round(seconds, 1)} for name, seconds in steps.items()],
            "seconds": round(sum(steps.values()), 1),
            "memory_gib": self._memory_gib(),
            "note": "an estimate from speeds measured with the default model on two cores; downloads not counted",
        }

    def _memory_gib(self) -> float | None:
        """At the peak, where the model's configuration is on this machine."""
        from workbench.saes.registry import find_sae, find_unshelved

        shape = shape_at_hand(self.model)
        found = [(find_unshelved(name) or find_sae(name)).d_sae for name in (self.sae, *self.controls, *self.other_seeds)]
        saes = [d_sae for d_sae in found if d_sae is not None]
        if shape is None or len(saes) < len(found):
            return None
        sample = self.settings.sample_tokens * (max(saes) * 4 + shape.d_model * 4) / 2**30  # codes and activations of the sample
        return round(reading_gib(shape, self.dtype) + saes_gib(saes, shape.d_model) + sample, 1)

    def run(self, out: Path | None, *, write_card: bool) -> dict[str, Any]:
        """The evaluation; kept part by part in `out` when given, and written into the SAE's folder with `write_card`."""
        from workbench.models.loading import load_model
        from workbench.saes.evaluation.card import evaluation_card
        from workbench.saes.evaluation.writing import check_writable, write_evaluation

        sae, controls, others = self._loaded()
        if write_card:
            check_writable(sae)
        model = load_model(self.model, dtype=self.dtype, device=self.device)
        sae = sae.to(model.device)
        controls, others = ({name: one.to(model.device) for name, one in some.items()} for some in (controls, others))
        value = evaluation_card(
            sae,
            model,
            personas=[persona_rollouts(folder, model, sae, self.persona_rows) for folder in self.runs],
            vectors=self._vectors(model, sae),
            controls=controls,
            other_seeds=others,
            settings=self.settings,
            parts=None if out is None else Path(out) / "parts",
        )
        value["personas"]["runs"] = [folder.name for folder in self.runs]
        value["written"] = [str(path) for path in write_evaluation(sae, value, out=out, write_card=write_card)]
        return value

    def _loaded(self) -> tuple[Any, dict[str, Any], dict[str, Any]]:
        from workbench.saes.registry import load_sae

        controls, others = ({(one := load_sae(name)).id: one for name in names} for names in (self.controls, self.other_seeds))
        return load_sae(self.sae), controls, others

    def _vectors(self, model: Model, sae: SparseAutoencoder) -> dict[str, Any]:
        """The vectors of finished runs of this model that know the SAE's hook; runs of other models are passed over."""
        from workbench.personas.vectors import PersonaVector

        found = {}
        for folder in self.vectors:
            vector = PersonaVector.load(folder / "vector")
            if vector.model.get("weights_hash") == model.weights_hash and sae.hook in vector.hooks:
                found[vector.trait] = vector.at(sae.hook)
        return found


def evaluation_job(
    sae: str,
    *,
    model: str | None,
    personas: str | None = None,
    runs: Path | None = None,
    controls: Sequence[str] = (),
    other_seeds: Sequence[str] = (),
    persona_rows: int = 400,
    dtype: str | None = None,
    device: str | None = None,
    **options: Any,
) -> EvaluationJob:
    """The job for an SAE id or folder; names and run folders are checked here, before anything is loaded.

    `personas`: names of traits with finished runs, "none", or None for the default trait if its run is there.
    """
    from workbench.saes.registry import find_sae, find_unshelved

    entry = find_unshelved(sae) or find_sae(sae)
    for name in (*controls, *other_seeds):
        _ = find_unshelved(name) or find_sae(name)
    used = model or entry.model
    root = runs or Path("runs")
    return EvaluationJob(
        sae,
        used,
        _named_runs(personas, root, used),
        () if personas == "none" else _finished_runs(root),
        tuple(controls),
        tuple(other_seeds),
        {name: value for name, value in options.items() if value is not None},
        persona_rows,
        dtype or "float32",
        device,
    )


def _named_runs(personas: str | None, root: Path, model: str) -> tuple[Path, ...]:
    from ..options import DEFAULT_TRAIT

    if personas == "none":
        return ()
    if personas is None:
        folder = _run_of(DEFAULT_TRAIT, root, model)
        return () if folder is None else (folder,)
    found = []
    for trait in [name.strip() for name in personas.split(",") if name.strip()]:
        folder = _run_of(trait, root, model)
        if folder is None:
            raise WorkbenchError(
                f"there is no finished run of {trait!r} with {model} in {root}",
                "a run folder with the trait's rollouts and its vector",
                f"run `workbench extract {trait} --model {model}` first, give its folder with --runs, or say --personas none",
            )
        found.append(folder)
    return tuple(found)


def _run_of(trait: str, root: Path, model: str) -> Path | None:
    from workbench.base.runs import default_run_folder

    for folder in (root / default_run_folder(trait, model).name, root / trait):
        if (folder / "vector" / "persona_vector.json").is_file():
            return folder
    return None


def _finished_runs(root: Path) -> tuple[Path, ...]:
    return tuple(sorted(path.parents[1] for path in root.glob("*/vector/persona_vector.json")))


def persona_rollouts(folder: Path, model: Model, sae: SparseAutoencoder, n_rows: int) -> PersonaRollouts:
    """A finished run as values: kept rows of the positive and the negative arm, re-encoded without the system prompt.

    Extraction rows make the probes, verification rows are scored (sealed ones are not read); at most `n_rows`, drawn evenly
    from both arms. Divisions of the instructions are those of the vector's own separability, at most five.
    """
    import torch

    from workbench.maths.statistics import category_codes
    from workbench.models.prompts import with_response
    from workbench.personas.judging import usable_mask
    from workbench.personas.reencoding import opened_answer, row_chat
    from workbench.personas.vectors import PersonaVector
    from workbench.saes.evaluation.personas import PersonaRollouts

    vector = PersonaVector.load(folder / "vector")
    if vector.model.get("weights_hash") != model.weights_hash:
        raise WorkbenchError(
            f"the vector in {folder} is of {vector.model.get('name')}",
            f"a run of {model.name} ({model.weights_hash[:12]})",
            "give another folder with --runs, or extract the trait with this model",
        )
    rows: Any = vector.rows
    rows = rows[usable_mask(rows) & rows["kept"] & rows["arm"].isin(["positive", "negative"])]
    rows = _drawn(rows[rows["split"].isin(["extraction", "verification"])], n_rows).reset_index(drop=True)
    records = rows.to_dict("records")
    opened = {question: opened_answer(model, question) for question in set(rows["question"])}
    chats: list[ChatTokens] = [with_response(opened[row["question"]], row["response_ids"]) for row in records]
    scored = torch.from_numpy((rows["split"] == "verification").to_numpy(dtype=bool).copy())
    return PersonaRollouts(
        trait=vector.trait,
        chats=tuple(chats),
        positive=torch.from_numpy((rows["arm"] == "positive").to_numpy(dtype=bool).copy()),
        question=category_codes(rows["question_id"].tolist()),
        judged=torch.from_numpy(rows["score"].to_numpy(dtype=float).copy()),
        cells=_cells(rows["instruction_id"].tolist(), scored),
        vector=vector.at(sae.hook),
        in_context=tuple(row_chat(model, row) for row in records if row["split"] == "verification"),
    )


def _cells(instructions: Sequence[str], scored: Any) -> tuple[tuple[Any, Any], ...]:
    """(make, score) masks: extraction rows under one part of the instructions, verification rows under the other."""
    import torch

    from workbench.personas.separability import instruction_divisions

    order = sorted(set(instructions))
    codes = torch.tensor([order.index(name) for name in instructions])
    divisions = instruction_divisions(len(order))
    chosen = divisions[:: -(-len(divisions) // MAX_CELLS)]
    return tuple(
        (~scored & torch.isin(codes, torch.tensor(make)), scored & torch.isin(codes, torch.tensor(score)))
        for make, score in chosen
    )


def _drawn(rows: Any, n_rows: int) -> Any:
    """At most `n_rows` rows: six tenths of the extraction questions, the rest to be scored, half of each a positive arm."""
    from workbench.base.randomness import derive_seed

    parts = []
    for split, share in (("extraction", MAKE_SHARE), ("verification", 1 - MAKE_SHARE)):
        for arm in ("positive", "negative"):
            own = rows[(rows["split"] == split) & (rows["arm"] == arm)]
            n = min(len(own), max(1, round(share * n_rows / 2)))
            parts.append(own.sample(n=n, random_state=derive_seed("persona rows", split, arm) % 2**32))
    import pandas

    return pandas.concat(parts)




def show_card(value: dict[str, Any]) -> None:
    """The card as tables: the gate, fitness per text set, and every claim beside its controls."""
    from ..console import say, table

    names = ("n_tokens", "variance_explained", "l0", "ce_recovered", "kl", "dense_share")
    rows = [(source, *(figures[name] for name in names)) for source, figures in value["held_out"].items()]
    table(value["sae"], ("held-out text", *names), rows, right=(1, 2, 3, 4, 5, 6))
    table("headline", ("what", "value"), list(value["headline"].items()), right=(1,))
    claims = [
        (name, claim, row["sae"], row["control"], row["excess"], interval(row["interval"]))
        for name, one in value["excess"]["over"].items()
        for claim, row in one["claims"].items()
    ]
    table("beside controls", ("control", "claim", "this SAE", "control", "excess", "95%"), claims, right=(2, 3, 4))
    gate = value["gate"]
    say(f"fitness gate: {'unmeasured' if gate['passed'] is None else 'passed' if gate['passed'] else 'FAILED'}")
    for failure in gate["failures"]:
        say(f"  {failure}")
    if gate["unmeasured"]:
        say(f"  not measured here: {', '.join(gate['unmeasured'])}")
    for path in value["written"]:
        say(f"written: {path}")
