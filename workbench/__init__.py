"""persona-workbench: take a persona vector apart, and say in words what it is made of.

    import workbench as wb
    model  = wb.load_model("smollm2-135m-instruct")
    vector = wb.extract("evil", model)
    sae    = wb.load_sae("smollm2-135m-instruct/blocks.15.hook_resid_post")
    parts  = wb.decompose(vector, sae, model=model)
    labels = wb.label(parts, sae, model)
    wb.report(vector, parts, labels).save("report.html")

Every name is imported when it is first used: `import workbench` itself takes milliseconds and loads no torch.
"""

from __future__ import annotations

from typing import Any

from .base import display

__version__ = "0.1.0"

# Public name -> the module that defines it.
_HOMES = {
    "WorkbenchError": "base.errors",
    "RunFolder": "base.runs",
    "HookPoint": "models.hookpoints",
    "Model": "models.loading",
    "load_model": "models.loading",
    "ChatServer": "models.servers",
    "fetch": "models.assets",
    "list_assets": "models.assets",
    "Sampling": "models.generation",
    "ChatExample": "models.finetuning",
    "FinetuneOptions": "models.finetuning",
    "finetune": "models.finetuning",
    "finetuned": "models.finetuning",
    "SparseAutoencoder": "saes.interface",
    "load_sae": "saes.registry",
    "list_saes": "saes.registry",
    "evaluation_card": "saes.evaluation.card",
    "check_fitness": "saes.evaluation.gate",
    "Trait": "personas.traits",
    "load_trait": "personas.traits",
    "list_traits": "personas.traits",
    "make_judge": "personas.judges",
    "RolloutDesign": "personas.rollouts",
    "collect_rollouts": "personas.rollouts",
    "extract": "notebook",
    "PersonaVector": "personas.vectors",
    "decompose": "decomposition.decompose",
    "Decomposition": "decomposition.result",
    "falsify": "decomposition.falsify",
    "Falsification": "decomposition.falsify",
    "label": "labeling.label",
    "LabelSet": "labeling.files.store",
    "load_labels": "labeling.files.store",
    "feature_view": "labeling.views.build",
    "feature_views": "labeling.views.build",
    "annotate": "labeling.annotating.notebook",
    "Edit": "steering.edits",
    "incremental": "steering.edits",
    "compose": "steering.composition",
    "steered": "steering.apply",
    "side_by_side": "steering.side_by_side",
    "Monitor": "steering.monitor.monitor",
    "watched_stream": "steering.monitor.streaming",
    "read_transcript": "steering.monitor.transcripts",
    "export_gguf": "steering.export",
    "score_samples": "steering.screen.scoring",
    "ScreenOptions": "steering.screen.scoring",
    "screen": "steering.screen.screening",
    "RoleDesign": "axis.space.design",
    "map_roles": "axis.space.mapping",
    "map_space": "axis.space.mapping",
    "compare_spaces": "axis.space.comparison",
    "report": "notebook",
    "Report": "reports.content",
    "TraitReports": "reports.several",
}

# Parts that are used as a namespace of their own: wb.lab.run(...).
_PARTS = ("lab",)

__all__ = ["__version__", *_HOMES, *_PARTS]  # noqa: PLE0604  # pyright: ignore[reportUnsupportedDunderAll]


display.register_provider(f"{__name__}.reports.displays")


def __getattr__(name: str) -> Any:
    import importlib

    if name in _PARTS:
        return importlib.import_module(f"{__name__}.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module 'workbench' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES, *_PARTS})
