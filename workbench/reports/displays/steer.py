"""Displays of edits, of directions to steer with, and of replies side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING

from workbench.reports.displays.frame import Display, listing, number

if TYPE_CHECKING:
    from collections.abc import Sequence

    from workbench.steering.composition import Composition
    from workbench.steering.directions import NamedDirection
    from workbench.steering.edits import Edit
    from workbench.steering.export import ExportedVector
    from workbench.steering.replies import ReplyQuality
    from workbench.steering.side_by_side import SideBySide, SteeredReply

_DONE = {
    "add": "added, {} median token norms",
    "ablate": "taken out",
    "clamp": "coordinate set to {}",
    "cap": "coordinate at most {}",
    "floor": "coordinate at least {}",
    "set": "activation set to {}",
}


def edit_display(edit: Edit) -> Display:
    """One edit in words."""
    return Display(f"Edit: {edit.label}", [f"{_in_words(edit)}, at {edit.hook}, on {_tokens(edit)}."])


def composition_display(found: Composition) -> Display:
    """The edits in the order in which they act."""
    lines = ["At each hook: ablations and clamps together, then features that are set, then adds, then caps."]
    return Display(f"{len(found.edits)} edits", lines, [_edits(found.edits)])


def direction_display(found: NamedDirection) -> Display:
    """A direction, and what it was made from."""
    rows = [(name, value) for name, value in found.source.items() if not isinstance(value, list)]
    rows += [(name, ", ".join(map(str, value[:12]))) for name, value in found.source.items() if isinstance(value, list)]
    return Display(found.name, [f"At {found.hook}, length {number(float(found.direction.norm()))}."], [listing(("", ""), rows)])


def side_by_side_display(found: SideBySide) -> Display:
    """The replies with their figures, and the features that were moved."""
    tables = [_replies(found.replies), *(_features(reply) for reply in found.replies if reply.features)]
    return Display(f"“{found.prompt}”", [], tables, notes=_cautions(found.replies))


def reply_display(found: SteeredReply) -> Display:
    """One reply with its figures."""
    return Display(found.arm, [found.text], [_replies((found,)), _features(found)], notes=_cautions((found,)))


def quality_display(found: ReplyQuality) -> Display:
    """The signs of a broken reply."""
    columns = ("tokens", "perplexity", "KL, nats per token", "repeated trigrams")
    return Display("How the reply reads", [], [listing(columns, [(found.n_tokens, found.perplexity, found.kl, found.repeated)])])


def exported_display(found: ExportedVector) -> Display:
    """The file, what strength 1 adds, and what to know."""
    lines = [f"{found.path}: strength 1 adds {number(found.dose_in_norms)} median token norms at {len(found.hooks)} blocks."]
    return Display("Control vector", lines, notes=found.notes)


def _in_words(edit: Edit) -> str:
    known = edit.amounts
    amount = number(known[0]) if len(known) == 1 else f"{number(min(known))} to {number(max(known))} by row"
    return _DONE[edit.kind].format(amount)


def _tokens(edit: Edit) -> str:
    where = {"all": "all tokens", "prompt": "the prompt", "response": "the response",
             "predicting": "the prompt’s last token and the response"}[edit.scope]  # fmt: skip
    return where if edit.rows is None else f"{where} of {sum(edit.rows)} rows"


def _edits(edits: Sequence[Edit]):
    rows = [(str(edit.hook), edit.label, _in_words(edit), _tokens(edit)) for edit in edits]
    return listing(("hook", "direction", "edit", "tokens"), rows)


def _replies(replies: Sequence[SteeredReply]):
    rows = [
        (reply.arm, reply.text, reply.dose_in_norms, reply.quality.perplexity, reply.quality.kl, reply.quality.repeated)
        for reply in replies
    ]
    return listing(("", "reply", "dose, norms", "perplexity", "KL, nats per token", "repeated trigrams"), rows)


def _features(reply: SteeredReply):
    rows = [(str(move.feature), move.label, move.before, move.after) for move in reply.features]
    return listing(("feature", "label", "without", "with"), rows, title=f"{reply.arm}: features that the edits move most")


def _cautions(replies: Sequence[SteeredReply]) -> list[str]:
    broken = [reply.arm for reply in replies if reply.may_be_broken]
    return [f"May be broken (unlikely text, or loops): {', '.join(broken)}."] if broken else []
