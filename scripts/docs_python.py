"""The reference of the Python library: every name of `import workbench as wb`, from its docstring, which mkdocstrings reads."""

from __future__ import annotations

import workbench
from workbench import _HOMES, _PARTS

# What a reader looks for -> the names under it, in the order of use. A name that is in none is put under "More" by its module.
SECTIONS = {
    "The six lines": ("load_model", "extract", "load_sae", "decompose", "label", "report"),
    "Values": (
        "PersonaVector", "Decomposition", "LabelSet", "Report", "TraitReports", "Falsification",
        "SparseAutoencoder", "Model", "Trait",
    ),
    "Models and assets": ("HookPoint", "ChatServer", "Sampling", "fetch", "list_assets"),
    "Traits, judges, rollouts": ("load_trait", "list_traits", "make_judge", "RolloutDesign", "collect_rollouts"),
    "SAEs": ("list_saes", "evaluation_card", "check_fitness"),
    "Checks": ("falsify",),
    "Features and labels": ("feature_view", "feature_views", "load_labels", "annotate"),
    "Runs and errors": ("RunFolder", "WorkbenchError"),
}


def sections() -> dict[str, list[str]]:
    """Section -> public names; together exactly `workbench.__all__` without the version and the parts."""
    placed = {title: [name for name in names if name in _HOMES] for title, names in SECTIONS.items()}
    known = {name for names in placed.values() for name in names}
    more = [name for name in _HOMES if name not in known]
    return placed | ({"More": more} if more else {})


def reference() -> str:
    """Markdown: a section per subject, an entry per name."""
    blocks = [f"Version {workbench.__version__}."]
    for title, names in sections().items():
        blocks.append(f"## {title}")
        blocks += [f"::: workbench.{_HOMES[name]}.{name}" for name in names]
    blocks += [f"## `wb.{part}`\n\n::: workbench.{part}" for part in _PARTS]
    return "\n\n".join(blocks)
