"""The evaluation card: every measure of an SAE in one go, beside its controls, each part kept as soon as it is done."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.base.display import Shown
from workbench.base.errors import WorkbenchError, unknown_name
from workbench.base.progress import track
from workbench.base.provenance import package_versions
from workbench.base.store import content_hash, read_json, write_json
from workbench.saes.evaluation.fitness import check_site, evaluate_all
from workbench.saes.evaluation.gate import check_fitness, warn_unless_fit
from workbench.saes.evaluation.headline import headline
from workbench.saes.evaluation.pooling import POOLINGS
from workbench.saes.evaluation.stability import check_other_seeds

if TYPE_CHECKING:
    from torch import Tensor

    from workbench.models.loading import Model
    from workbench.models.prompts import ChatTokens
    from workbench.saes.evaluation.personas import PersonaRollouts
    from workbench.saes.evaluation.sample import TokenSample
    from workbench.saes.interface import SparseAutoencoder

logger = logging.getLogger(__name__)

SCHEMA = 2


@dataclass(frozen=True)
class CardSettings:
    """How much is read; the defaults take about ten minutes on one core with the default model and 8,192 features."""

    tokens: int = 2_000
    """of each held-out text set"""
    chats: int = 16
    """answers of the model itself that are sampled for the set `chats`; 0 leaves it out"""
    sample_tokens: int = 8_192
    """kept in memory for covariance, principal components, thresholds of random dictionaries, splitting and absorption"""
    probe_sets: tuple[str, ...] | None = None
    """labelled sets, by name; None = the first twelve of data/probe_sets.yaml, () = no probing"""
    probe_rows: int = 200
    """texts of each labelled set"""
    probe_tokens: int = 48
    """tokens of each text"""
    pooling: str = "mean"
    """"mean" over a text's tokens, or its "last" token"""
    probe_ks: tuple[int, ...] = (1, 2, 5, 16)
    n_atoms: tuple[int, ...] = (8, 32, 128)
    batch_tokens: int = 2_048
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("tokens", "sample_tokens", "probe_rows", "probe_tokens", "batch_tokens"):
            if getattr(self, name) < 1:
                raise WorkbenchError(f"{name} is {getattr(self, name)}", "a number above 0", "correct the settings")
        if self.pooling not in POOLINGS:
            raise unknown_name("pooling", self.pooling, POOLINGS)


N_DEFAULT_SETS = 12


class EvaluationCard(Shown, dict[str, Any]):
    """What `evaluation_card` measured, JSON types only: a dictionary that shows its headline."""

    def __repr__(self) -> str:
        return f"EvaluationCard({self.get('sae')!r}: {', '.join(self)})"


def evaluation_card(
    sae: SparseAutoencoder,
    model: Model,
    *,
    personas: Sequence[PersonaRollouts] = (),
    vectors: Mapping[str, Tensor] | None = None,
    controls: Mapping[str, SparseAutoencoder] | None = None,
    other_seeds: Mapping[str, SparseAutoencoder] | None = None,
    settings: CardSettings | None = None,
    parts: Path | None = None,
) -> EvaluationCard:
    """The evaluation of `sae` on `model`: JSON types only; see docs/saes.md for what each number means and its null.

    `personas` are rollouts for probing (their vectors are also expressed), `vectors` further persona vectors `[d_model]` at
    the SAE's hook, `controls` SAEs of the same hook that claims are compared with, `other_seeds` SAEs trained like this one
    from another seed. In the folder `parts` each finished part is kept; the same call goes on from there. Needs the assets
    `sae-probes` and `evals`.
    """
    run = _Run(sae, model, personas, dict(vectors or {}), dict(controls or {}), settings or CardSettings(), parts)
    check_other_seeds(sae, other_seeds or {}, model)
    started = time.perf_counter()
    value: dict[str, Any] = run.identity() | {
        "held_out": run.part("fitness", run.fitness)[sae.id],
        "control_fitness": {k: v for k, v in run.part("fitness", run.fitness).items() if k != sae.id},
        "probing": run.part("probing", run.probing),
        "personas": run.part("personas", run.personas_part),
        "expression": run.part("expression", run.expression),
        "splitting": run.part("splitting", run.splitting),
    }
    value["stability"] = run.stability(other_seeds or {}, value["personas"])
    value["excess"] = run.excess(value)
    value["headline"] = headline(value, sae)
    gate = check_fitness(replace(sae, card={**sae.card, "evaluation": value}))
    warn_unless_fit(sae.id, gate)
    value["gate"] = gate.to_dict()
    return EvaluationCard(value | {"seconds": round(time.perf_counter() - started, 1), "versions": package_versions()})


class _Run:
    """What the parts share: the sample of tokens and the random dictionaries made from it."""

    def __init__(
        self,
        sae: SparseAutoencoder,
        model: Model,
        personas: Sequence[PersonaRollouts],
        vectors: dict[str, Tensor],
        controls: dict[str, SparseAutoencoder],
        settings: CardSettings,
        folder: Path | None,
    ) -> None:
        self.sae, self.model, self.personas, self.settings = sae, model, list(personas), settings
        self.controls, self.folder = controls, folder
        self.trained_on = _trained_on(sae, model)
        self._made: dict[str, Any] = {}
        self.vectors = vectors | {one.trait: one.vector for one in personas}
        if sae.id in controls:
            raise WorkbenchError(
                f"{sae.id} is given as a control of itself", "other SAEs of the site", "leave it out of --controls"
            )
        check_site([sae, *controls.values()], model)

    def identity(self) -> dict[str, Any]:
        kinds = {name: self.kind(name) for name in self.controls}
        return {
            "schema": SCHEMA,
            "sae": self.sae.id,
            "weights_hash": self.sae.weights_hash,
            "model": self.model.description(),
            "trained_on_this_model": self.trained_on,
            "hook": str(self.sae.hook),
            "d_model": self.sae.d_model,
            "d_sae": self.sae.d_sae,
            "settings": asdict(self.settings),
            "controls": {
                name: {"kind": kinds[name], "weights_hash": one.weights_hash} for name, one in self.controls.items()
            },
        }

    def kind(self, name: str) -> str:
        from workbench.saes.evaluation.controls import control_kind

        return control_kind(self.controls[name].card, name)

    def part(self, name: str, made: Callable[[], Any]) -> Any:
        """The part's value, read back where the same part was finished before."""
        if self.folder is None:
            if name not in self._made:
                self._made[name] = made()
            return self._made[name]
        traits = {one.trait: one.identity() for one in self.personas}
        named = {name: vector.tolist() for name, vector in self.vectors.items()}
        path = self.folder / f"{name}-{content_hash([self.identity(), traits, named])[:16]}.json"
        if not path.is_file():
            write_json(path, made())
        return read_json(path)

    @cached_property
    def texts(self) -> dict[str, list[ChatTokens]]:
        from workbench.saes.evaluation.texts import corpus_of, split_of, text_sets

        n_tokens, n_chats, seed = self.settings.tokens, self.settings.chats, self.settings.seed
        corpus, split = corpus_of(self.sae), split_of(self.sae.card)
        found = text_sets(self.model, n_tokens=n_tokens, n_chats=n_chats, seed=seed, corpus=corpus, split_on=split)
        for one in self.personas:
            if one.in_context:
                found[f"rollouts-{one.trait}"] = _first(one.in_context, self.settings.tokens)
        return found

    @cached_property
    def sample(self) -> TokenSample:
        from workbench.saes.evaluation.sample import token_sample
        from workbench.saes.evaluation.texts import corpus_of, split_of, text_sets

        each, split = -(-self.settings.sample_tokens // 3), split_of(self.sae.card)
        sets = text_sets(self.model, n_tokens=each + each // 10, n_chats=0, corpus=corpus_of(self.sae), split_on=split)
        samples = [token_sample(self.model, self.sae.hook, rows, n_tokens=each) for rows in sets.values()]
        return _joined(samples)

    @cached_property
    def random(self) -> dict[str, SparseAutoencoder]:
        from workbench.saes.evaluation.dictionaries import RANDOM_KINDS, random_dictionary

        return {
            kind: random_dictionary(self.sae, self.sample.activations, kind=kind, seed=self.settings.seed)
            for kind in RANDOM_KINDS
        }

    @property
    def everything(self) -> dict[str, SparseAutoencoder]:
        return {self.sae.id: self.sae, **self.controls, **self.random}

    def fitness(self) -> dict[str, dict[str, Any]]:
        """{SAE: {text set: figures}}, the controls in the same passes."""
        saes = [self.sae, *self.controls.values()]
        found: dict[str, dict[str, Any]] = {name: {} for name in (self.sae.id, *self.controls)}
        for name, rows in self.texts.items():
            figures = evaluate_all(
                saes, self.model, rows, batch_tokens=max(256, self.settings.batch_tokens // 2), label=f"Fitness on {name}"
            )
            for id, one in zip(found, figures, strict=True):
                found[id][name] = one.to_dict()
        return found

    def probing(self) -> dict[str, Any] | None:
        from workbench.saes.evaluation.probing_sets import probe_labelled_sets

        if self.settings.probe_sets == ():
            return None
        return probe_labelled_sets(self.model, self.everything, self.settings)

    def personas_part(self) -> dict[str, Any]:
        from workbench.saes.evaluation.personas import persona_probing, persona_summary, top_persona_features
        from workbench.saes.evaluation.pooling import pool

        traits = []
        for one in self.personas:
            pooled = pool(
                self.model, self.everything, one.chats, span="response", batch_tokens=self.settings.batch_tokens,
                label=f"Encoding {one.trait} responses",
            )  # fmt: skip
            with track(f"Probing {one.trait}", None, "probes"):
                found = persona_probing(one, pooled, seed=self.settings.seed)
            features, shares = top_persona_features(one, pooled.codes[self.sae.id], self.sae.decoder_directions)
            traits.append(found | {"top_features": features, "top_shares": shares})
        return {"traits": traits, "summary": persona_summary(traits, self.sae.id)}

    def expression(self) -> dict[str, Any] | None:
        from workbench.saes.evaluation.expression import expression

        if not self.vectors:
            return None
        decoders = {name: one.decoder_directions for name, one in {self.sae.id: self.sae, **self.controls}.items()}
        with track("Expressing persona vectors", None, "vectors"):
            return expression(
                self.vectors, decoders, self.sample.activations, n_atoms=self.settings.n_atoms, seed=self.settings.seed
            )

    def splitting(self) -> dict[str, Any]:
        """Splitting and absorption of the SAE, the controls and the covariance-matched random dictionary."""
        from workbench.saes.evaluation import splitting as measure

        compared = {k: v for k, v in self.everything.items() if k != "random_isotropic"}
        texts = measure.token_texts(self.model.tokenizer, self.sample.ids)
        labels = measure.token_concepts(texts, self.sample.ids)
        found: dict[str, Any] = {}
        with track("Splitting and absorption", total=len(compared), unit="dictionaries") as step:
            for name, one in compared.items():
                absorbed = {
                    concept: measure.absorption(one, self.sample, holds, seed=self.settings.seed)
                    for concept, holds in labels.items()
                }
                rates = [row["absorption_rate"] for row in absorbed.values() if row["absorption_rate"] is not None]
                found[name] = measure.splitting(one, self.sample.activations, seed=self.settings.seed) | {
                    "absorption": absorbed,
                    "absorption_rate": sum(rates) / len(rates) if rates else None,
                }
                step()
        return found

    def stability(
        self, others: Mapping[str, SparseAutoencoder], personas: Mapping[str, Any]
    ) -> dict[str, Any] | None:
        """Per other seed and null the matched shares; `seed_matched_top30` is that of a trait's top features, mean over traits.

        Beside each share of another seed stands the larger one of the two nulls.
        """
        from workbench.saes.evaluation.dictionaries import activation_directions
        from workbench.saes.evaluation.splitting import firing_counts
        from workbench.saes.evaluation.stability import NULLS, stability

        if not others:
            return None
        alive = firing_counts(self.sae, self.sample.activations) > 0
        lists = {one["trait"]: one["top_features"] for one in personas["traits"]}
        own, seed = self.sae.decoder_directions, self.settings.seed
        compared = {name: other.decoder_directions for name, other in others.items()} | {
            "activations": activation_directions(self.sample.activations, len(own), seed),
            "random_covariance": self.random["random_covariance"].decoder_directions,
        }
        found: dict[str, Any] = {}
        for name, directions in compared.items():
            one = stability(own, directions.to(own.device), alive=alive, lists=lists)
            shares = list(one["seed_matched_lists"].values())
            found[name] = one | {"seed_matched_top30": sum(shares) / len(shares) if shares else None}
        for key in ("seed_matched", "seed_matched_top30"):
            null = max((found[name][key] for name in NULLS if found[name][key] is not None), default=None)
            for name in others:
                found[name][f"{key}_null"] = null
        return found

    def excess(self, value: Mapping[str, Any]) -> dict[str, Any]:
        from workbench.saes.evaluation.controls import all_excesses

        return all_excesses(value, {name: self.kind(name) for name in self.controls})


def _trained_on(sae: SparseAutoencoder, model: Model) -> bool | None:
    """Whether the card names these weights; None where it names none. A mismatch is warned about: controls may want it."""
    described = sae.card.get("model")
    named = described.get("weights_hash") if isinstance(described, Mapping) else None
    recorded = sae.card.get("model_weights_hash") or named
    if recorded and recorded != model.weights_hash:
        logger.warning("%s was trained on other weights than those of %s.", sae.id, model.name)
    return None if not recorded else recorded == model.weights_hash


def _joined(samples: Sequence[TokenSample]) -> TokenSample:
    import torch

    from workbench.saes.evaluation.sample import TokenSample

    firsts = [sum(one.n_documents for one in samples[:i]) for i in range(len(samples))]
    return TokenSample(
        torch.cat([one.activations for one in samples]),
        torch.cat([one.ids for one in samples]),
        torch.cat([one.documents + first for one, first in zip(samples, firsts, strict=True)]),
    )


def _first(rows: Sequence[ChatTokens], n_tokens: int) -> list[ChatTokens]:
    chosen: list[ChatTokens] = []
    for row in rows:
        if sum(len(r.ids) for r in chosen) >= n_tokens:
            break
        chosen.append(row)
    return chosen
