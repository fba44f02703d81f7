"""What `workbench features index` reads, and what it would cost."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.base.errors import WorkbenchError
from workbench.base.locks import exclusive
from workbench.base.runs import HOLDER, LOCK
from workbench.base.store import make_folder

if TYPE_CHECKING:
    from workbench.labeling.contexts.pieces import Spread
    from workbench.models.model import Model
    from workbench.saes.interface import SparseAutoencoder

CORPORA = ("owt", "wikipedia")
BYTES_PER_TRIPLE = 8


@dataclass(frozen=True)
class IndexJob:
    """An index to build: the SAE and the model by name, and what is read."""

    model: str
    sae: str | None
    tokens: int
    rollouts: Sequence[Path]
    texts: Sequence[Path]
    chats: int
    out: Path | None
    seed: int
    dtype: str
    device: str | None
    engine: str = "local"
    address: str | None = None

    def __post_init__(self) -> None:
        if self.address is not None and self.engine != "ray":
            raise WorkbenchError(f"--address {self.address} with --engine {self.engine}", "the engine ray", "add --engine ray")

    def run(self) -> dict[str, Any]:
        """Build the index, or go on with it; returns what is in it."""
        from dataclasses import replace

        from workbench.labeling.contexts.building import build_index
        from workbench.models.loading import load_model
        from workbench.saes.registry import load_sae

        from ..inputs import find_sae

        site = find_sae(self.sae, self.model)
        for run in self.rollouts:
            _vector_folder(run)
        folder = self.out or index_folder(site.id)
        with exclusive(make_folder(folder) / LOCK, folder / HOLDER, partial(_busy, folder)):
            model = load_model(self.model, dtype=self.dtype, device=self.device)
            sae = replace(load_sae(site.reference), id=site.id).to(model.device)
            index = build_index(
                sae, model, self._documents(model, sae, folder), folder, n_tokens=self.tokens, seed=self.seed,
                spread=self._on_ray(model, site.reference, folder) if self.engine == "ray" else None,
            )  # fmt: skip
        return summary_of(index)

    def _on_ray(self, model: Model, sae: str, folder: Path) -> Spread:
        """Pieces as Ray tasks, each on as many cores as this process has threads, or on a GPU where the model here is on one."""
        import torch

        from workbench.cluster import exchanged, on_ray
        from workbench.labeling.contexts.pieces import Spread

        on_gpu = model.device.type == "cuda"
        placed = {"gpus_per_task": 1} if on_gpu else {"cpus_per_task": torch.get_num_threads()}
        cluster = partial(on_ray, address=self.address, ahead=2, **placed)
        run = exchanged(cluster, folder, reads=lambda _: [], writes=lambda piece: [Path(piece.folder)])
        return Spread(run, self.model, sae, model.device.type)

    def plan(self) -> dict[str, Any]:
        """About how long it takes and how much disk and memory, from the SAE's card; nothing is loaded."""
        from workbench.labeling.contexts.tallies import Sizes
        from workbench.saes.registry import find_sae as entry_of

        from ..inputs import find_sae
        from ..plan import FORWARD_TOKENS_PER_SECOND, SAMPLED_TOKENS_PER_SECOND

        site = find_sae(self.sae, self.model)
        entry = entry_of(site.reference)
        on_disk, in_memory = Sizes().bytes_per_feature()
        active = float(entry.card.get("l0") or 50.0)
        seconds = {"chats": self.chats * 64 / SAMPLED_TOKENS_PER_SECOND, "reading": self.tokens / FORWARD_TOKENS_PER_SECOND}
        return {
            "what": f"an index of the {entry.d_sae:,} features of {site.id}",
            "folder": str(self.out or index_folder(site.id)),
            "steps": [{"step": name, "seconds": round(value, 1)} for name, value in seconds.items()],
            "seconds": round(sum(seconds.values()), 1),
            "disk_bytes": int(self.tokens * active * BYTES_PER_TRIPLE + entry.d_sae * on_disk),
            "memory_bytes": int(entry.d_sae * in_memory),
            "note": "an estimate from speeds measured with the default model on two cores; memory beside model and SAE",
        }

    def _documents(self, model: Model, sae: SparseAutoencoder, folder: Path) -> Iterator[Any]:
        """Rollouts, then chats, then texts: what is short comes first, so that the bound on tokens cuts off texts only."""
        from workbench.labeling.contexts.chats import held_out_chats
        from workbench.labeling.contexts.streams import rollout_stream
        from workbench.personas.vectors import PersonaVector

        for run in self.rollouts:
            vector = PersonaVector.load(_vector_folder(run))
            if vector.model.get("weights_hash") != model.weights_hash:
                raise WorkbenchError(
                    f"the vector in {run} is of {vector.model.get('name')}", f"a run of {model.name}", "leave that run out"
                )
            yield from rollout_stream(vector, sae.hook)
        if self.chats:
            yield from held_out_chats(model, self.chats, folder / "chats", seed=self.seed)
        yield from self._texts()

    def _texts(self) -> Iterator[Any]:
        from itertools import chain, zip_longest

        from workbench.saes.corpus import documents, text_file

        own = list(map(text_file, self.texts))
        sources = own or [documents(name, role="labels") for name in CORPORA]
        return (one for one in chain.from_iterable(zip_longest(*sources)) if one is not None)


def index_folder(sae_id: str) -> Path:
    """Where the index of an SAE lies unless said otherwise: runs/features/<id of the SAE>."""
    return Path("runs") / "features" / sae_id


def summary_of(index: Any) -> dict[str, Any]:
    """What is in an index."""
    fired = index.arrays["pools_fired"].sum(0)
    return {
        "folder": str(index.folder),
        "sae": index.sae_id,
        "model": index.document["model"]["name"],
        "n_features": index.d_sae,
        "n_dead": int((fired == 0).sum()),
        "n_tokens": index.n_tokens,
        "n_documents": index.document["n_documents"],
        "sources": index.sources,
        "traits": list(index.traits),
        "key": index.key,
    }


def opened_index(folder: Path | None, sae: str | None, model: str, *, loaded: bool = False) -> Any:
    """The index in `folder`, or that of the SAE; with `loaded` the model and the SAE come with it."""
    from workbench.labeling.contexts.index import FeatureIndex

    from ..inputs import find_sae

    place = folder or index_folder(find_sae(sae, model).id)
    index = FeatureIndex.open(place)
    if not loaded:
        return index
    from workbench.models.loading import load_model
    from workbench.saes.registry import load_sae

    subject = load_model(model, dtype=index.document["model"]["dtype"])
    return FeatureIndex.open(place, model=subject, sae=load_sae(find_sae(sae, model).reference).to(subject.device))


def _busy(folder: Path, who: str) -> WorkbenchError:
    remedy = "wait for it, or choose another --out"
    return WorkbenchError(f"the index in {folder} is being built by {who}", "one process per index", remedy)


def _vector_folder(run: Path) -> Path:
    for place in (run / "vector", run):
        if (place / "persona_vector.json").is_file():
            return place
    raise WorkbenchError(
        f"{run} holds no vector", "a run folder of `workbench extract`", "run `workbench extract TRAIT` first, or check the path"
    )
