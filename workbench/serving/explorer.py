"""What the pages look at: the runs, the labels, the index, and the model, which is loaded while the pages are up already."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.base.errors import WorkbenchError, unknown_name
from workbench.serving.runs import RunOnDisk, ServedRun, known_labels, read_run
from workbench.serving.turns import Turns

if TYPE_CHECKING:
    from workbench.labeling.contexts.index import FeatureIndex
    from workbench.models.model import Model
    from workbench.saes.interface import SparseAutoencoder
    from workbench.serving.labelling import LabelBook
    from workbench.serving.reading import Persona

logger = logging.getLogger(__name__)

Loader = Callable[[], "tuple[Model, SparseAutoencoder | None]"]
PARTS = ("runs", "index", "model")
WAITING, LOADING, READY, FAILED, ABSENT = "waiting", "loading", "ready", "failed", "absent"


@dataclass(frozen=True)
class Limits:
    """Bounds of what one request may ask for."""

    max_characters: int = 20_000
    """Longest text, and longest conversation in all."""
    max_tokens: int = 1024
    """Longest text in tokens."""
    max_new_tokens: int = 256
    """Longest reply."""
    max_seconds: float = 120.0
    """Longest generation."""
    max_dose: float = 2.0
    """Largest dose, in median token norms."""
    waiting: int = 4
    """Requests that may wait for the model."""
    patience: float = 30.0
    """Seconds that a request waits for its turn."""


class NotReady(WorkbenchError):
    """Asked for before it was loaded, or after it failed to load."""


class Explorer:
    """The values behind the pages. `start` loads them in the background: the runs first, then the index, then the model.

    `load` gives the model and the SAE (None where no SAE reads the model); `index` is the folder of a feature index, `labels` the
    folder that verdicts are written to, `annotator` the name that is offered to sign them with.
    """

    def __init__(
        self,
        runs: Sequence[RunOnDisk],
        load: Loader,
        *,
        index: Path | None = None,
        labels: Path | None = None,
        annotator: str = "",
        limits: Limits | None = None,
    ) -> None:
        self.on_disk, self._load, self._index_folder, self._labels_folder = list(runs), load, index, labels
        self.annotator, self.limits = annotator, limits or Limits()
        self.turns = Turns(waiting=self.limits.waiting, patience=self.limits.patience)
        self.states: dict[str, tuple[str, str]] = dict.fromkeys(PARTS, (WAITING, ""))
        if index is None:
            self.states["index"] = (ABSENT, "this explorer was started without --index")
        self.runs: list[ServedRun] = []
        self.personas: list[Persona] = []
        self._book: LabelBook | None = None
        self._index: FeatureIndex | None = None
        self._model: Model | None = None
        self._sae: SparseAutoencoder | None = None

    # ------------------------------------------------------------------------------------------------- what is there

    @property
    def traits(self) -> list[str]:
        """The traits of the runs, in the order given."""
        return [run.trait for run in self.on_disk]

    def run(self, trait: str | None = None) -> ServedRun:
        """The run of a trait, by default the first one."""
        self._require("runs")
        wanted = trait or self.traits[0]
        found = next((run for run in self.runs if run.trait == wanted), None)
        if found is None:
            raise unknown_name("trait in this explorer", wanted, self.traits)
        return found

    @property
    def book(self) -> LabelBook:
        """The labels."""
        self._require("runs")
        if self._book is None:
            raise NotReady("no run here was decomposed, so there are no features to label", "a run with a decomposition",
                           "`workbench report TRAIT` makes one")  # fmt: skip
        return self._book

    @property
    def has_features(self) -> bool:
        """Whether a run says which SAE its features are of."""
        return any(run.sae for run in self.on_disk)

    @property
    def index(self) -> FeatureIndex | None:
        """The feature index; None without one, or until it is opened."""
        return self._index

    @property
    def model(self) -> Model:
        """The model. Raises NotReady until it is loaded."""
        self._require("model")
        assert self._model is not None
        return self._model

    @property
    def sae(self) -> SparseAutoencoder | None:
        """The SAE; None where there is none for the model. Raises NotReady until it is loaded."""
        self._require("model")
        return self._sae

    def require_sae(self) -> SparseAutoencoder:
        """The SAE, or a WorkbenchError that says that there is none."""
        found = self.sae
        if found is None:
            raise WorkbenchError(
                "there is no SAE for this model", "an SAE that reads its activations", "start again with --sae"
            )
        return found

    def feature(self, feature: int) -> int:
        """The feature itself where the SAE has it. Raises WorkbenchError otherwise."""
        run = next((one.sae for one in self.on_disk if one.sae), None)
        d_sae = int((run or {}).get("d_sae") or 0)
        if not 0 <= feature < d_sae:
            raise WorkbenchError(
                f"there is no feature {feature}", f"0 to {d_sae - 1}" if d_sae else "a run with a decomposition"
            )
        return feature

    def status(self) -> dict[str, Any]:
        """{part: {state, message}} for runs, index and model, and what the pages show of them."""
        first = self.on_disk[0]
        sae = next((run.sae for run in self.on_disk if run.sae), None)
        return {
            **{part: {"state": state, "message": message} for part, (state, message) in self.states.items()},
            "traits": self.traits,
            "model_name": str(first.model.get("name", "a model")),
            "sae": None if sae is None else str(sae["id"]),
            "d_sae": None if sae is None else sae.get("d_sae"),
            "labels_folder": None if self._labels_folder is None else str(self._labels_folder),
            "annotator": self.annotator,
            "at_work": self.turns.n_inside,
            "limits": {"max_new_tokens": self.limits.max_new_tokens, "max_dose": self.limits.max_dose,
                       "max_characters": self.limits.max_characters, "max_tokens": self.limits.max_tokens},
        }  # fmt: skip

    # ------------------------------------------------------------------------------------------------- how it gets there

    def start(self) -> threading.Thread:
        """Load everything in a thread of its own; `states` says how far it is."""
        thread = threading.Thread(target=self.load_all, name="workbench-loading", daemon=True)
        thread.start()
        return thread

    def load_all(self) -> None:
        """Load the runs, the index and the model, one after the other; what fails is told in `states` and stops nothing else."""
        for part, loads in (("runs", self._read_runs), ("index", self._open_index), ("model", self._load_model)):
            if self.states[part][0] != ABSENT:
                self._one(part, loads)

    def _one(self, part: str, loads: Callable[[], None]) -> None:
        self.states[part] = (LOADING, "")
        try:
            loads()
        except WorkbenchError as error:
            self.states[part] = (FAILED, str(error))
        except Exception as error:  # a page that says so is better than one that waits for ever
            logger.exception("could not load the %s", part)
            self.states[part] = (FAILED, f"{type(error).__name__}: {error}")
        else:
            self.states[part] = (READY, "")

    def _read_runs(self) -> None:
        from workbench.personas.neutral import neutral_scale
        from workbench.personas.traits import load_trait
        from workbench.serving.labelling import LabelBook
        from workbench.serving.reading import Persona

        self.runs = [read_run(run) for run in self.on_disk]
        self.personas = [
            Persona(run.trait, run.vector.hook, run.vector.direction, neutral_scale(run.vector)) for run in self.runs
        ]
        parts = next((run.parts for run in self.runs if run.parts is not None), None)
        if parts is None:
            return
        try:
            trait = load_trait(self.traits[0])
        except WorkbenchError:  # an imported vector may carry a name that nobody described
            trait = None
        sae_id, sae_hash = parts.sae["id"], parts.sae["weights_hash"]
        given = known_labels(self.runs, sae_id, sae_hash)
        self._book = LabelBook(sae_id, sae_hash, given, self._labels_folder, trait=trait)

    def _open_index(self) -> None:
        from workbench.labeling.contexts.index import FeatureIndex

        assert self._index_folder is not None
        index = FeatureIndex.open(self._index_folder)
        wanted = next((run.sae.get("weights_hash") for run in self.on_disk if run.sae), None)
        if wanted is not None and index.sae_hash != wanted:
            raise WorkbenchError(f"the index in {self._index_folder} is of the SAE {index.sae_id}", "an index of this run's SAE",
                                 "give another one, or build one with `workbench features index`")  # fmt: skip
        self._index = index

    def _load_model(self) -> None:
        model, sae = self._load()
        for what, found, known in (
            ("model", model.weights_hash, self.on_disk[0].model.get("weights_hash")),
            ("SAE", sae and sae.weights_hash, next((run.sae.get("weights_hash") for run in self.on_disk if run.sae), None)),
        ):
            if found and known and found != known:
                raise WorkbenchError(f"a {what} with the weights {found[:12]}", f"the run's own, {str(known)[:12]}",
                                     f"name the {what} that the run was made with (--{what.lower()})")  # fmt: skip
        hooks = [*([sae.hook] if sae else []), *(persona.hook for persona in self.personas)]
        model.norm_medians(hooks)  # measured once, here and not in the first request
        self._model, self._sae = model, sae if sae is None else sae.to(model.device)

    def _require(self, part: str) -> None:
        state, message = self.states[part]
        if state != READY:
            name = {"runs": "run", "index": "index", "model": "model"}[part]
            found = f"the {name} could not be loaded: {message}" if state == FAILED else f"the {name} is still being loaded"
            raise NotReady(
                found, "a moment's patience" if state != FAILED else "", "" if state != FAILED else "see the message"
            )
