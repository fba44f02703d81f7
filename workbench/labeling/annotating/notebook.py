"""`wb.annotate(labels, trait="evil")`: annotating in a notebook."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from workbench.base.errors import WorkbenchError
from workbench.base.settings import setting
from workbench.base.store import PathLike
from workbench.labeling.annotating.journal import clean_name, journal_path
from workbench.labeling.annotating.queue import make_queue
from workbench.labeling.annotating.session import AnnotationSession
from workbench.labeling.evidence import FeatureEvidence
from workbench.labeling.files.store import set_folder
from workbench.labeling.labels import LabelSet

if TYPE_CHECKING:
    from workbench.labeling.annotating.widget import AnnotationWidget
    from workbench.personas.traits import Trait


def annotate(
    labels: LabelSet,
    *,
    name: str | None = None,
    trait: str | Trait | None = None,
    blind: bool = False,
    features: Sequence[int] | None = None,
    evidence: Mapping[int, FeatureEvidence] | None = None,
    order: str = "rank",
    seed: int = 0,
    folder: PathLike = "feature_labels",
) -> AnnotationWidget:
    """A screen on which a person reads features and has the last word on their labels.

    `labels` are the proposed ones (`wb.load_labels(sae_id)`); `name` is the person's (default: the setting `annotator`), `trait`
    the one whose categories are chosen from, `features` which to read (default: all), `evidence` contexts that are preferred to
    those in the label files. What is decided is written to the label folder `folder` at once. Run again, the cell goes on where
    the person was.

        import workbench as wb
        wb.annotate(wb.load_labels("smollm2-135m-instruct/blocks.15.hook_resid_post"), name="...", trait="evil", blind=True)

    Raises:
        WorkbenchError: anywidget is not installed, no name, nothing to read, or the journal is held by another process.
    """
    try:
        from workbench.labeling.annotating.widget import AnnotationWidget
    except ImportError as error:
        remedy = 'pip install "persona-workbench[notebook]", or use `workbench labels annotate` in a terminal'
        raise WorkbenchError(f"annotating in a notebook needs {error.name}", "the extra `notebook`", remedy) from error
    from workbench.personas.traits import load_trait

    signed = clean_name(setting("annotator", name))
    items = make_queue(labels, evidence=evidence, features=features, order=order, seed=seed)
    chosen = load_trait(trait) if isinstance(trait, str) else trait
    AnnotationWidget.release(journal_path(set_folder(folder, labels.sae_id), signed))
    session = AnnotationSession(
        items, folder, labels.sae_id, labels.sae_hash, annotator=signed, trait=chosen, blind=blind
    )
    return AnnotationWidget(session)
