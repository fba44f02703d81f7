"""How much each rollout weighs: every role the same, and the default assistant on the questions that the roles answered."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from workbench.base.errors import WorkbenchError
from workbench.personas.judging import Mask, usable_mask

if TYPE_CHECKING:
    import pandas

DEFAULT_ARM, ROLE_ARM = "positive", "negative"


def vector_rows(rows: pandas.DataFrame, *, filter: bool = True) -> Mask:
    """The rows that vectors are made from: extraction questions that the default answered, with tokens; of roles those `kept`."""
    usable = usable_mask(rows) & (rows["split"] == "extraction")
    default = usable & (rows["arm"] == DEFAULT_ARM)
    asked = list(set(rows.loc[default, "question_id"]))
    played = usable & (rows["arm"] == ROLE_ARM) & rows["question_id"].isin(asked)
    return default | (played & rows["kept"] if filter else played)


def axis_weights(rows: pandas.DataFrame, used: Mask, roles: Sequence[str]) -> Any:
    """Row weights [n] of mean(default) - mean over `roles` of each role's mean: the default's sum to 1, the others' to -1.

    A row of role r weighs -1 / (R n_r): within a role every rollout counts the same, as in the paper. The default is averaged
    over the questions as the roles were asked them,

        w_i = m_q / n_q      m_q = the roles' weight on question q,  n_q = the default's rows on it

    so that no question weighs more on one side than on the other (after a filter it otherwise would). used: `vector_rows`.
    Raises WorkbenchError when nothing is left on a side.
    """
    default = used & (rows["arm"] == DEFAULT_ARM)
    role = used & (rows["arm"] == ROLE_ARM) & rows["trait"].isin(list(roles))
    names: Any = rows.loc[role, "trait"]
    if not default.any() or names.empty:
        side = "the default assistant" if not default.any() else "any of the roles"
        raise WorkbenchError(f"no rollout of {side} counts", "rollouts on both sides", "sample more, or look at the replies")
    weights: Any = rows["n_tokens"].astype(float) * 0
    weights[role] = -1 / (names.nunique() * names.map(names.value_counts()))
    mass = -weights[role].groupby(rows.loc[role, "question_id"]).sum()
    questions: Any = rows.loc[default, "question_id"]
    weights[default] = (questions.map(mass) / questions.map(questions.value_counts())).fillna(0.0)
    return weights.to_numpy(copy=True)
