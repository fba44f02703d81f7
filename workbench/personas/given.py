"""A user's own responses: read from a table, captured through the model without generating anything."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.base.errors import WorkbenchError
from workbench.base.store import content_hash, read_parquet
from workbench.base.untrusted import refuses_damage
from workbench.models.hookpoints import HookPoint
from workbench.models.loading import Model
from workbench.models.prompts import ChatTokens, chat_template_hash, tokenize_chat, whole_signs
from workbench.models.thinking import ANSWER_RULE, answer_start, may_think
from workbench.personas.parts import PartStore, Produced, complete_parts
from workbench.personas.reencoding import answer_lead, captured, chat_messages, prompt_tokens
from workbench.personas.rollouts import Rollouts, assemble, rollout_table
from workbench.personas.traits import ARMS, SPLITS, Trait

if TYPE_CHECKING:
    import pandas

NEEDED = ("question", "response", "arm")
MIN_TO_SPLIT = 12  # so that two thirds still hold the eight questions that a vector needs


@refuses_damage
def read_responses(source: str | Path | pandas.DataFrame, trait: Trait) -> pandas.DataFrame:
    """The user's table with all columns that rollouts have; refuses missing columns, empty texts and unknown
    arms.

    Needed: question, response, arm. Optional: question_id, instruction_id, system, split. A question of the
    trait keeps its split; of other questions every third (by hash) is held out for evaluation when there are
    12 or more.
    """
    frame: Any = read_parquet(source).to_pandas() if isinstance(source, (str, Path)) else source.copy()
    _check(frame)
    for name in ("question", "response", *(one for one in ("system",) if one in frame)):
        frame[name] = frame[name].map(whole_signs)
    frame["question_id"] = _or(
        frame, "question_id", frame["question"].map(lambda text: content_hash(text)[:12])
    )
    frame["instruction_id"] = _or(frame, "instruction_id", "given")
    frame["system"] = _or(frame, "system", "")
    frame["split"] = _or(frame, "split", _splits(frame, trait))
    unknown = sorted(set(frame["split"]) - set(SPLITS))
    if unknown:
        raise WorkbenchError(
            f"unknown split {unknown[0]!r} in the responses",
            f"one of {', '.join(SPLITS)}",
            "correct the split column",
        )
    columns = ["split", "question_id", "instruction_id", "arm", "system", "question", "response"]
    frame = frame[columns].drop_duplicates().reset_index(drop=True)
    frame["sample"] = frame.groupby(["question_id", "instruction_id", "arm"]).cumcount()
    return frame


def capture_responses(
    source: str | Path | pandas.DataFrame,
    trait: Trait,
    model: Model,
    folder: str | Path,
    *,
    hooks: Sequence[HookPoint],
    token_hooks: Sequence[HookPoint] = (),
    batch_size: int = 32,
) -> Rollouts:
    """The user's responses as Rollouts: the same parts on disk, resumable the same way."""
    rows, chats = _encoded(read_responses(source, trait), trait, model)

    def wanted(row_id: str) -> Sequence[HookPoint]:
        return token_hooks if row_id in rows and rows[row_id]["split"] == "extraction" else ()

    def produce(ids: list[str]) -> Produced:
        chosen = [chats[row_id] for row_id in ids]
        means, tokens, n_sinks = captured(model, chosen, hooks, wanted(ids[0]))
        table = rollout_table([{**rows[i], "n_sinks": count} for i, count in zip(ids, n_sinks, strict=True)])
        return table, means, tokens

    store = PartStore(Path(folder))
    batches = _batches(rows, chats, batch_size)
    complete_parts(
        store, batches, produce, hooks=hooks, token_hooks=wanted, label="reading the given responses"
    )
    return assemble(store, list(rows.values()), hooks, token_hooks)


def _encoded(
    frame: pandas.DataFrame, trait: Trait, model: Model
) -> tuple[dict[str, dict[str, Any]], dict[str, ChatTokens]]:
    fixed = ["given", model.weights_hash, chat_template_hash(model), str(model.dtype)]
    fixed += [ANSWER_RULE] if may_think(model) else []
    rows, chats = {}, {}
    for record in frame.to_dict("records"):
        messages = chat_messages(record["system"], record["question"])
        messages.append({"role": "assistant", "content": record["response"]})
        row_id = content_hash([*fixed, messages, record["arm"], record["sample"]])[:24]
        chats[row_id] = tokenize_chat(model, messages)
        ids = [chats[row_id].ids[position] for position in chats[row_id].positions("response")]
        prompt = prompt_tokens(model, record["system"], record["question"]) if may_think(model) else None
        lead = answer_lead(model, prompt, chats[row_id]) if prompt else ()
        rows[row_id] = {
            "id": row_id,
            "trait": trait.name,
            **record,
            "response": record["response"][answer_start(record["response"]) :],
            "response_ids": ids,
            **({"lead_ids": lead} if lead else {}),
            "finished": True,
            "seed": 0,
        }
    return rows, chats


def _batches(
    rows: dict[str, dict[str, Any]], chats: dict[str, ChatTokens], batch_size: int
) -> list[list[str]]:
    batches = []
    for extraction in (True, False):
        ids = [row_id for row_id, row in rows.items() if (row["split"] == "extraction") is extraction]
        ids.sort(key=lambda row_id: (len(chats[row_id].ids), row_id))
        batches += [ids[i : i + batch_size] for i in range(0, len(ids), batch_size)]
    return batches


def _check(frame: pandas.DataFrame) -> None:
    missing = [name for name in NEEDED if name not in frame.columns]
    if missing or frame.empty:
        lack = f"no column {', '.join(missing)}" if missing else "no rows"
        raise WorkbenchError(
            f"the responses have {lack} (columns: {', '.join(map(str, frame.columns))})",
            f"rows with the columns {', '.join(NEEDED)}",
            "add what is missing; question_id, instruction_id, system and split are optional",
        )
    for name in NEEDED:
        empty = [i for i, value in enumerate(frame[name]) if not isinstance(value, str) or not value.strip()]
        if empty:
            raise WorkbenchError(
                f"row {empty[0]} has no {name}", "text in every row", "fill it in or drop the row"
            )
    unknown = sorted(set(frame["arm"]) - set(ARMS))
    if unknown:
        raise WorkbenchError(
            f"unknown arm {unknown[0]!r}", f"one of {', '.join(ARMS)}", "correct the arm column"
        )


def _or(frame: pandas.DataFrame, name: str, otherwise: Any) -> Any:
    return frame[name].fillna(otherwise).astype(str) if name in frame.columns else otherwise


def _splits(frame: pandas.DataFrame, trait: Trait) -> Any:
    known = {question.text: question.split for question in trait.questions}
    others = sorted(set(frame["question"]) - set(known), key=content_hash)
    if len(others) >= MIN_TO_SPLIT:
        known |= dict.fromkeys(others[2::3], "verification")
    return frame["question"].map(lambda text: known.get(text, "extraction"))
