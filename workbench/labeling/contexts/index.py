"""The index of all features of an SAE: asked by feature, by text and by trait, without running the model again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from workbench.base.display import Shown
from workbench.base.errors import WorkbenchError, unknown_name
from workbench.base.store import read_json
from workbench.base.untrusted import refuses_damage
from workbench.labeling.contexts.choosing import Chooser, Window
from workbench.labeling.contexts.opening import read_index, stored_tokenizer
from workbench.labeling.contexts.reading import Collection
from workbench.labeling.contexts.sightings import N_BINS
from workbench.labeling.contexts.stats import (
    Contrast,
    FeatureStats,
    Firing,
    Partner,
    Rate,
    TokenShare,
    arm_of,
)
from workbench.labeling.contexts.streams import KINDS, ROLES
from workbench.labeling.contexts.tallies import N_POSITIONS
from workbench.labeling.evidence import Context
from workbench.labeling.tokens import token_strings

if TYPE_CHECKING:
    from workbench.labeling.contexts.shards import Shard
    from workbench.models.model import Model
    from workbench.saes.interface import SparseAutoencoder

ALL = "all"
HALVES = ("explaining", "scoring")


class FeatureIndex(Shown):
    """An index as `build_index` wrote it. Opening reads the counts (some kilobytes a feature); texts and activations stay on disk
    until contexts are asked for.

    `model` and `sae` are needed for `search`, and for what `collection` says of promoted tokens and decoder neighbours.
    """

    def __init__(
        self,
        folder: Path,
        document: Mapping[str, Any],
        arrays: Mapping[str, np.ndarray],
        *,
        model: Model | None = None,
        sae: SparseAutoencoder | None = None,
    ):
        self.folder, self.document, self.arrays = folder, document, arrays
        self.model, self.sae = model, sae

    @staticmethod
    @refuses_damage
    def open(
        folder: str | Path, *, model: Model | None = None, sae: SparseAutoencoder | None = None
    ) -> FeatureIndex:
        """The index in `folder`.

        Raises:
            WorkbenchError: no finished index, a damaged file, an index of another SAE or model than the given ones.
        """
        place = Path(folder)
        document, arrays = read_index(place)
        index = FeatureIndex(place, document, arrays, model=model, sae=sae)
        index.check_same(sae, model)
        return index

    def __repr__(self) -> str:
        return f"FeatureIndex({self.sae_id!r}, {self.d_sae:,} features, {self.n_tokens:,} tokens)"

    def with_weights(self, model: Model, sae: SparseAutoencoder) -> FeatureIndex:
        """The same index with the model and the SAE that it is of; WorkbenchError for others."""
        self.check_same(sae, model)
        return FeatureIndex(self.folder, self.document, self.arrays, model=model, sae=sae)

    # ------------------------------------------------------------------------------------------------- what it is

    @property
    def d_sae(self) -> int:
        return int(self.document["sae"]["d_sae"])

    @property
    def sae_id(self) -> str:
        return str(self.document["sae"]["id"])

    @property
    def sae_hash(self) -> str:
        return str(self.document["sae"]["weights_hash"])

    @property
    def n_tokens(self) -> int:
        """Tokens that count: special tokens, first tokens of texts and sinks are left out."""
        return int(self.arrays["pools_tokens"].sum())

    @property
    def key(self) -> str:
        """The hash of the settings and of everything that was read."""
        return str(self.document["key"])

    @property
    def sources(self) -> dict[str, int]:
        """Source -> tokens that count."""
        tokens = self.arrays["sources_tokens"].tolist()
        return dict(sorted(zip(self.document["sources"], tokens, strict=True)))

    @property
    def traits(self) -> tuple[str, ...]:
        """Traits whose rollouts were read."""
        return tuple(sorted({name.split(":")[1] for name in self.document["sources"] if len(name.split(":")) == 3}))

    @property
    def context(self) -> int:
        """Tokens of a window."""
        return int(self.document["sizes"]["context"])

    def pieces(self) -> Iterator[tuple[int, Shard]]:
        """(number of its first token in the whole index, piece) of everything that was read, one piece in memory at a time."""
        return self.chooser.pieces(range(len(self.document["shards"])))

    def windows(self, tokens: Iterable[int]) -> dict[int, Window]:
        """The window around each token (numbers in the whole index); every piece is read once."""
        return self.chooser.windows(tokens)

    @cached_property
    def tokenizer(self) -> Any:
        """The tokenizer of the texts, from the index itself when no model was given."""
        return self.model.tokenizer if self.model is not None else stored_tokenizer(self.folder)

    @cached_property
    def background(self) -> Counter[str]:
        """How often each word was read."""
        words = read_json(self.folder / "words.json")
        if not (isinstance(words, dict) and all(type(n) is int and n > 0 for n in words.values())):
            raise WorkbenchError(f"{self.folder / 'words.json'} does not count words", "word: count", "build the index again")
        return Counter(words)

    @cached_property
    def chooser(self) -> Chooser:
        """The kept places, and the windows around them."""
        return Chooser(self.folder, self.document, self.arrays)

    # ------------------------------------------------------------------------------------------------- by feature

    def stats(self, feature: int) -> FeatureStats:
        """Everything that was counted of one feature."""
        self.check(feature)
        a = self.arrays
        fired, total = int(a["pools_fired"][:, feature].sum()), float(a["pools_total"][:, feature].sum())
        first = int(a["first_fired"][feature])
        return FeatureStats(
            feature=feature,
            n_tokens=self.n_tokens,
            n_fired=fired,
            mean=total / fired if fired else 0.0,
            maximum=float(a["largest"][:, feature].max()),
            histogram=_edges(self.chooser.histogram(feature, range(2 * len(KINDS)))),
            kinds=self._kinds(feature),
            roles=self._rates("roles", ROLES, feature),
            positions=self._positions(feature),
            sources=self._rates("sources", self.document["sources"], feature),
            first_token_share=first / (first + fired) if first else 0.0,
            top_tokens=self._top_tokens(feature, fired),
            tokens_missed=int(a["token_missed"][feature]),
            partners=self._partners(feature),
            partners_tokens=int(self.document["coactivation"]["n_tokens"]),
            partners_share=float(self.document["coactivation"]["share"]),
        )

    def contexts(
        self, feature: int, kind: str = "top", source: str = ALL, half: str = "explaining", n: int = 10
    ) -> tuple[Context, ...]:
        """Contexts of a feature: its `n` strongest ("top", strongest first), or `n` from across its activation quantiles
        ("quantiles", weakest first), of one half and of all sources or one kind of them ("corpus", "chat", "rollouts")."""
        self.check(feature)
        for what, value, known in (("kind of contexts", kind, ("top", "quantiles")), ("half", half, HALVES),
                                   ("kind of source", source, (ALL, *KINDS))):  # fmt: skip
            if value not in known:
                raise unknown_name(what, value, known)
        pools = self._pools(source, half)
        choose = self.chooser.top if kind == "top" else self.chooser.spread
        chosen = choose(feature, pools, n).token.tolist()
        windows = self.chooser.windows(chosen)
        found = [windows[token].context(feature, self.tokenizer) for token in chosen]
        return tuple(found if kind == "top" else sorted(found, key=lambda context: context.peak_value))

    def collection(
        self,
        features: Iterable[int],
        *,
        n_top: int = 10,
        n_quantiles: int = 6,
        n_held_out: int = 30,
        n_neighbours: int = 3,
    ) -> Collection:
        """Evidence and held-out windows as `collect_evidence` gives them, without reading anything through the model.

        Raises WorkbenchError without an SAE when neighbours are wanted (open the index with `sae=`).
        """
        from workbench.labeling.contexts.gathering import gather

        return gather(
            self, features, n_top=n_top, n_quantiles=n_quantiles, n_held_out=n_held_out, n_neighbours=n_neighbours
        )

    # ------------------------------------------------------------------------------------------- by text, by trait

    def search(
        self, text: str, model: Model | None = None, sae: SparseAutoencoder | None = None, *, n: int = 10
    ) -> tuple[Firing, ...]:
        """What fires on a text, token by token, at most `n` features each; the index itself is not needed for the activations,
        `stats` then says how unusual they are."""
        from workbench.labeling.contexts.gathering import fires_on

        model, sae = model or self.model, sae or self.sae
        if model is None or sae is None:
            raise WorkbenchError("no model or no SAE to read the text with", "both", "give them, or open the index with them")
        self.check_same(sae, model)
        return fires_on(text, model, sae, n=n)

    def for_trait(self, trait: str, *, n: int = 30, by: str = "mean") -> tuple[Contrast, ...]:
        """The `n` features that differ most between the positive and the negative rollouts of a trait, either way.

        `by` "mean": mean activation over all tokens; "density": share of tokens. Tokens of one answer are not independent: this
        says what to look at, not what is proven.
        """
        if trait not in self.traits:
            raise unknown_name("trait with rollouts in this index", trait, self.traits, remedy="index its rollouts as well")
        if by not in ("mean", "density"):
            raise unknown_name("contrast", by, ("mean", "density"))
        rows = {arm: self._arm(trait, arm) for arm in ("positive", "negative", "neutral")}
        fired = {arm: self.arrays["sources_fired"][places].sum(0) for arm, places in rows.items()}
        total = {arm: self.arrays["sources_total"][places].sum(0) for arm, places in rows.items()}
        tokens = {arm: int(self.arrays["sources_tokens"][places].sum()) for arm, places in rows.items()}
        missing = [arm for arm in ("positive", "negative") if not tokens[arm]]
        if missing:
            raise WorkbenchError(f"no {missing[0]} rollouts of {trait} were read", "both arms", "index more tokens")
        value = total if by == "mean" else fired
        difference = value["positive"] / tokens["positive"] - value["negative"] / tokens["negative"]
        order = np.lexsort((np.arange(self.d_sae), -np.abs(difference)))[:n]

        def rate(arm: str, feature: int) -> Rate:
            return _rate(tokens[arm], int(fired[arm][feature]), float(total[arm][feature]))

        return tuple(
            Contrast(f, rate("positive", f), rate("negative", f), rate("neutral", f) if tokens["neutral"] else None)
            for f in order.tolist()
            if difference[f]
        )

    # ------------------------------------------------------------------------------------------------- inner parts

    def check(self, feature: int) -> None:
        """Refuse a feature that the SAE does not have."""
        if not 0 <= feature < self.d_sae:
            raise WorkbenchError(
                f"there is no feature {feature} in {self.sae_id}", f"0 to {self.d_sae - 1}", "choose another feature"
            )

    def check_same(self, sae: SparseAutoencoder | None, model: Model | None) -> None:
        """Refuse an SAE or a model other than the index's."""
        for what, given, known in (("SAE", sae, self.document["sae"]), ("model", model, self.document["model"])):
            if given is not None and given.weights_hash != known["weights_hash"]:
                raise WorkbenchError(
                    f"the index in {self.folder} is of the {what} {known.get('id', known.get('name'))} "
                    f"({str(known['weights_hash'])[:12]})",
                    f"one of the weights {given.weights_hash[:12]}",
                    f"load that {what}, or index this one in another folder",
                )

    def _pools(self, source: str, half: str) -> list[int]:
        return [2 * i + HALVES.index(half) for i, kind in enumerate(KINDS) if source in (ALL, kind)]

    def _kinds(self, feature: int) -> dict[str, Rate]:
        tokens, fired, total = (
            self.arrays[f"pools_{name}"].reshape(len(KINDS), 2, -1).sum(1) for name in ("tokens", "fired", "total")
        )
        return {
            kind: _rate(int(tokens[i, 0]), int(fired[i, feature]), float(total[i, feature]))
            for i, kind in enumerate(KINDS)
            if tokens[i, 0]
        }

    def _rates(self, split: str, names: Iterable[str], feature: int) -> dict[str, Rate]:
        tokens, fired, total = (self.arrays[f"{split}_{name}"] for name in ("tokens", "fired", "total"))
        return {
            name: _rate(int(tokens[i]), int(fired[i, feature]), float(total[i, feature]))
            for i, name in enumerate(names)
            if tokens[i]
        }

    def _positions(self, feature: int) -> tuple[tuple[int, int | None, Rate], ...]:
        rates = self._rates("positions", map(str, range(N_POSITIONS)), feature)
        ends = [(int(2 ** (i - 1)), None if i == N_POSITIONS - 1 else max(2**i - 1, 0)) for i in range(N_POSITIONS)]
        return tuple((*ends[int(name)], rate) for name, rate in rates.items())

    def _top_tokens(self, feature: int, fired: int) -> tuple[TokenShare, ...]:
        vocab = int(self.document["vocab_size"])
        keys = self.arrays["token_keys"]
        part = slice(*np.searchsorted(keys, [feature * vocab, (feature + 1) * vocab]))
        tokens, counts = (keys[part] - feature * vocab), self.arrays["token_counts"][part]
        order = np.lexsort((tokens, -counts))
        return tuple(
            TokenShare(int(t), token_strings(self.tokenizer, [int(t)])[0], int(c), int(c) / fired)
            for t, c in zip(tokens[order], counts[order], strict=True)
        )

    def _partners(self, feature: int) -> tuple[Partner, ...]:
        a, fired = self.arrays, self.arrays["partners_fired"]
        pairs = zip(a["partners"][feature].tolist(), a["together"][feature].tolist(), strict=True)
        own = int(fired[feature])
        return tuple(
            Partner(other, n, n / float(np.sqrt(float(own) * float(fired[other]))), n / own) for other, n in pairs if other >= 0
        )

    def _arm(self, trait: str, arm: str) -> list[int]:
        return [i for i, name in enumerate(self.document["sources"]) if arm_of(name, trait) == arm]


def _rate(n_tokens: int, n_fired: int, total: float) -> Rate:
    return Rate(n_tokens, n_fired, total / n_fired if n_fired else 0.0)


def _edges(counts: np.ndarray) -> tuple[tuple[float, float, int], ...]:
    assert len(counts) == N_BINS
    return tuple((2.0 ** ((b - 40) / 4), 2.0 ** ((b - 39) / 4), int(counts[b])) for b in np.flatnonzero(counts).tolist())
