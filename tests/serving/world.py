"""A small world to explore: a tiny model and a planted SAE on disk, a run of a made-up trait with labels, and a server on it."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tests.labeling.planted import planted_sae
from tests.tiny import tiny_model
from workbench.decomposition.result import FEATURE_ARRAYS, Decomposition
from workbench.labeling.evidence import Context, FeatureEvidence
from workbench.labeling.files.store import FeatureLabel, LabelSet, replace_labels
from workbench.personas.parts import PartStore, parts_hash
from workbench.personas.vectors import ROW_TYPES, PersonaVector, TokenSource, empty_rows
from workbench.serving.explorer import Explorer, Limits
from workbench.serving.runs import find_runs
from workbench.serving.security import Access
from workbench.serving.server import access_for, make_server, open_socket

TRAIT, N_REPLIES = "evil", 12
WORDS = ("calling somebody an idiot", "rivers and lakes", "music", "bread and cheese")


def make_vector(model: Any, sae: Any, folder: Path) -> PersonaVector:
    """A vector along feature 0, with the token activations of N_REPLIES neutral and as many positive replies."""
    import pandas
    import pyarrow

    random = torch.Generator().manual_seed(1)
    arms = ["neutral"] * N_REPLIES + ["positive"] * N_REPLIES
    ids = [f"row-{i}" for i in range(len(arms))]
    tokens = [torch.randn(5 + i % 3, model.d_model, generator=random) + (arm == "positive") * sae.decoder_directions[0] * 3
              for i, arm in enumerate(arms)]  # fmt: skip
    store = PartStore(folder)
    means = torch.stack([one.mean(0) for one in tokens])[:, None]
    store.write(0, pyarrow.table({"id": ids}), means, {sae.hook: tokens}, hooks=[sae.hook])
    source = TokenSource(folder, (sae.hook,), parts_hash(store.headers()), (0,))
    rows = pandas.DataFrame({"id": ids, "arm": arms, "split": "extraction", "response_ids": [[1, 2]] * len(ids)})
    rows = rows.reindex(columns=list(ROW_TYPES)).combine_first(empty_rows().reindex(rows.index))[list(ROW_TYPES)]
    for name, kind in ROW_TYPES.items():
        if name not in ("id", "arm", "split", "response_ids"):
            rows[name] = pandas.Series([0 if kind in ("int64", "float64", "bool") else ""] * len(ids)).astype(kind)
    direction = 3 * sae.decoder_directions[0] + sae.decoder_directions[5]
    return PersonaVector(
        TRAIT, model.description(), sae.hook, (sae.hook,), direction[None], None, None, None, rows, {}, source
    )


def make_parts(sae: Any, vector: PersonaVector) -> Decomposition:
    """Shares that add up to 1; feature 0 is most of it."""
    d_sae = sae.d_sae
    share = torch.full((d_sae,), 0.01, dtype=torch.float64)
    share[0], share[1] = 0.5, -0.05
    unknown = torch.full((d_sae,), math.nan)
    arrays: dict[str, Any] = {name: unknown.clone() for name in FEATURE_ARRAYS}
    arrays |= {"share": share, "share_low": share - 0.02, "share_high": share + 0.02, "cosine": share.float(),
               "pursuit": torch.zeros(d_sae), "in_v_up": share > 0.1}  # fmt: skip
    described = {"id": sae.id, "hook": str(sae.hook), "model": "tiny", "weights_hash": sae.weights_hash, "d_model": sae.d_model,
                 "d_sae": d_sae, "variance_explained": 0.8, "l0": 5.0, "ce_recovered": 0.9, "dead_share": 0.0}  # fmt: skip
    return Decomposition(
        trait=TRAIT, sae=described, vector={"trait": TRAIT, "hook": str(sae.hook)}, **arrays, share_error=1 - float(share.sum()),
        share_error_interval=(0.2, 0.5), share_sum_error=0.0, n_questions=20, vector_norm=3.2, candidates=(),
        replicate_features=torch.arange(d_sae), replicate_shares=share.repeat(20, 1), replicate_error=torch.full((20,), 0.3),
        direction=vector.direction,
    )  # fmt: skip


def evidence(feature: int, text: str = " they said") -> FeatureEvidence:
    """Two contexts in which the feature fires on the second token."""
    contexts = tuple(Context((text, f" word{feature}", " and"), (0.0, 3.0 - i, 0.5), 1, "owt", f"d{i}", 4) for i in range(2))
    return FeatureEvidence(feature, 0.02, 3.5, contexts, promoted=(" up",), suppressed=(" down",), n_tokens=1000)


def make_labels(sae: Any, *, text: str | None = None) -> LabelSet:
    """Labels of features 0 to 3 by a program; every text of theirs is `text` when it is given."""
    author = {"kind": "model", "name": "a test"}
    made = {
        i: FeatureLabel(
            i, text or words, text or "as planted", {TRAIT: "topic"}, author, evidence=evidence(i, text or " they said")
        )
        for i, words in enumerate(WORDS)
    }
    return LabelSet(sae.id, sae.weights_hash, made)


@dataclass(frozen=True)
class World:
    """What is on disk, and what is in memory."""

    run: Path
    model: Any
    sae: Any

    def explorer(self, **options: Any) -> Explorer:
        """An explorer on the run, with everything loaded."""
        made = Explorer(find_runs([self.run]), lambda: (self.model, self.sae), **options)
        made.load_all()
        assert {state for state, _ in made.states.values()} <= {"ready", "absent"}, made.states
        return made


def make_world(folder: Path, *, text: str | None = None) -> World:
    """A run of the tiny model, with vector, decomposition and labels."""
    model, sae = tiny_model(), planted_sae()
    run = folder / "runs" / "evil-tiny"
    vector = make_vector(model, sae, run)
    vector.save(run / "vector")
    make_parts(sae, vector).save(run / "decomposition")
    replace_labels(make_labels(sae), run / "labels")
    return World(run, model, sae)


@dataclass(frozen=True)
class Served:
    """A running server."""

    explorer: Explorer
    access: Access

    @property
    def base(self) -> str:
        return self.access.address

    def client(self, **headers: str) -> Any:
        """An httpx client that holds the token as a program would."""
        import httpx

        return httpx.Client(
            base_url=self.base, headers={"authorization": f"Bearer {self.access.token}", **headers}, timeout=30
        )


@contextmanager
def serving(explorer: Explorer) -> Iterator[Served]:
    """uvicorn on a free port, in a thread."""
    made, started = open_socket("127.0.0.1", 0), threading.Event()
    access = access_for(made, "127.0.0.1")
    server = make_server(explorer, access, ready=started.set)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [made]}, daemon=True)
    thread.start()
    assert started.wait(20)
    try:
        yield Served(explorer, access)
    finally:
        server.should_exit = True
        thread.join(10)
        made.close()
        assert not thread.is_alive()


def small(**values: Any) -> Limits:
    """Limits that tests can reach."""
    return Limits(**{"max_characters": 2000, "max_tokens": 200, "max_new_tokens": 40, **values})
