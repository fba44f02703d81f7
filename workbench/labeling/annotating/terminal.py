"""The annotation session in a terminal: one screen per feature, one key per action."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from workbench.base.errors import WorkbenchError
from workbench.labeling.annotating.keys import END, LEFT, RIGHT, Keys
from workbench.labeling.annotating.session import AnnotationSession
from workbench.labeling.annotating.view import view
from workbench.labeling.evidence import PEAK_CLOSE, PEAK_OPEN

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

_ACTIONS = {"c": "confirm", "r": "reject", "u": "unclear", "p": "pass", "b": "back", "n": "next", LEFT: "back", RIGHT: "next"}
_KEYS = {"confirm": "c", "edit": "e", "write": "e", "reject": "r", "unclear": "u", "pass": "p", "category": "t", "note": "m",
         "back": "b", "next": "n"}  # fmt: skip
_HELP = """c  confirm the proposed label            e  edit: your own words (in blind mode: write them)
r  reject the proposed label             p  pass (blind mode): see the proposed label without having written one
u  unclear: the contexts have no common meaning that you can name
t  choose a category (1 to 9: the first nine at once)            m  write a note
b  back (also the left arrow)            n  next, without a verdict (also the right arrow)
?  these keys                            q  stop; everything is saved already, and the session goes on here next time
In contexts the token on which the feature fires hardest stands between « and »; the stronger it fires, the stronger the mark.
While writing: Enter takes the text, Escape leaves it for later, Ctrl-U clears it."""


def annotate_in_terminal(session: AnnotationSession, console: Console, keys: Keys) -> None:
    """Run the session until the person stops or the input ends. Colours follow the console (and NO_COLOR)."""
    message = ""
    with contextlib.suppress(KeyboardInterrupt):  # wherever it falls, also while the screen is drawn
        while True:
            draw(console, view(session, message))
            key = keys.read()
            if key in ("q", END):
                return
            try:
                message = _press(session, console, keys, key)
            except WorkbenchError as error:
                message = str(error)


def _press(session: AnnotationSession, console: Console, keys: Keys, key: str) -> str:
    """Do what a key stands for; returns what there is to say about it."""
    if key == "?":
        return _HELP
    if key in _ACTIONS:
        session.act(_ACTIONS[key])
    elif key == "e":
        _write(session, keys)
    elif key == "m":
        _text(session, keys, "note", "note: ", _drafted(session, "note"))
    elif key == "t":
        _choose(session, console, keys)
    elif key.isdecimal() and key != "0" and len(key) == 1:
        _category(session, int(key))
    elif key.strip() and len(key) == 1:
        return f"no action has the key {key}; ? lists the keys"
    return ""


def _write(session: AnnotationSession, keys: Keys) -> None:
    action = "write" if session.current is not None and session.is_hidden(session.current.feature) else "edit"
    _text(session, keys, action, "label: ", _drafted(session, "label"))


def _drafted(session: AnnotationSession, field: str) -> str:
    """What an entry begins with: the half-written text, else what was written before, else the proposed wording."""
    shown = view(session)
    if session.current is None:
        return ""
    if (draft := shown["drafts"].get(field)) is not None:
        return draft
    if field == "note":
        return shown["note"]
    return shown["own"] or shown["label"] or (shown["proposed"] or {}).get("label") or ""


def _text(session: AnnotationSession, keys: Keys, action: str, prompt: str, text: str) -> None:
    if action not in session.allowed():
        session.act(action)  # says why not
    draft: Callable[[str], None] = lambda value: session.act(f"draft_{'note' if action == 'note' else 'label'}", value)  # noqa: E731
    given = keys.line(prompt, text, draft)
    if given is not None:
        session.act(action, given)


def _choose(session: AnnotationSession, console: Console, keys: Keys) -> None:
    entries = view(session)["categories"]
    if not entries:
        session.act("category")  # says why not
    from rich.text import Text

    for number, entry in enumerate(entries, start=1):
        console.print(Text(f"{number:>3}  {entry['id']:<26} {entry['description']}"))
    given = (keys.line("category (number or name): ", "", lambda _: None) or "").strip()
    if given.isdecimal():
        _category(session, int(given))
    elif given:
        begun = [entry["id"] for entry in entries if entry["id"].startswith(given)]
        session.act("category", begun[0] if len(begun) == 1 else given)


def _category(session: AnnotationSession, number: int) -> None:
    entries = view(session)["categories"]
    if not 1 <= number <= len(entries):
        raise WorkbenchError(f"there is no category number {number}", f"1 to {len(entries)}" if entries else "a trait (--trait)")
    session.act("category", entries[number - 1]["id"])


# ---------------------------------------------------------------------------------------------------- drawing


def draw(console: Console, shown: dict[str, Any]) -> None:
    """One feature, or the end of the queue, on the console. Texts of models and files are never read as markup."""
    from rich.rule import Rule
    from rich.text import Text

    if console.is_terminal:
        console.clear()
    blind = " · blind" if shown["blind"] else ""
    head = f"{shown['n_read']} of {shown['n_features']} read{blind} · {shown['trait'] or 'no trait'} · {shown['annotator']}"
    if shown["feature"] is None:
        console.print(Rule(Text(head)))
        console.print(Text("Every feature is read. b goes back, q ends."))
    else:
        console.print(Rule(Text(f"feature {shown['feature']} · {shown['position']} of {shown['n_features']} · {head}")))
        _draw_feature(console, shown)
    if shown["message"]:
        console.print(Text(shown["message"], style="bold"))
    actions = "  ".join(f"{_KEYS[name]} {name}" for name in shown["allowed"])
    console.print(Text(f"{actions}  ? help  q stop", style="dim"))
    if shown["saved_at"]:
        console.print(Text(f"saved at {shown['saved_at'][11:19]} UTC", style="dim"))


def _draw_feature(console: Console, shown: dict[str, Any]) -> None:
    from rich.text import Text

    if shown["density"] is not None:
        console.print(Text(f"fires on {100 * shown['density']:.3g}% of tokens, at most {shown['max_activation'] or 0:.3g}"))
    for context in shown["contexts"]:
        console.print(_context(context))
    if not shown["contexts"]:
        console.print(Text("no contexts are at hand for this feature"))
    for name in ("promoted", "suppressed"):
        if shown[name]:
            console.print(Text(f"{name}: " + "  ".join(map(repr, shown[name][:12]))))
    console.print()
    for line in _said(shown):
        console.print(line)


def _context(context: dict[str, Any]) -> Text:
    from rich.text import Text

    line = Text()
    line.append(f"{context['value']:>7.2f}  ", style="dim")
    if not context["tokens"]:
        line.append(f"text not kept: {context['source']}, {context['document']}, token {context['position']}", style="dim")
    for index, (text, shade) in enumerate(context["tokens"]):
        peak = index == context["peak"]
        line.append(f"{PEAK_OPEN}{text}{PEAK_CLOSE}" if peak else text, style=_style(shade, peak))
    return line


def _style(shade: float, peak: bool) -> str:
    """Bold and underlined parts stay without colours."""
    if peak or shade > 2 / 3:
        return "bold underline black on #ffaf5f"
    if shade > 1 / 3:
        return "underline black on #ffd7af"
    return "underline" if shade > 0.05 else ""


def _said(shown: dict[str, Any]) -> list[Text]:
    from rich.text import Text

    proposed, lines = shown["proposed"], []
    if shown["hidden"]:
        lines.append(Text("the proposed label is hidden until you have written your own (e) or passed (p)", style="italic"))
    elif proposed is None:
        lines.append(Text("nobody proposed a label", style="italic"))
    else:
        lines.append(Text(f"proposed: {proposed['label']}", style="bold"))
        said = f"{proposed['category'] or 'no category'}, by {proposed['author']}. {proposed['explanation']}"
        lines.append(Text(f"          {said}"))
    if shown["own"]:
        lines.append(Text(f"you wrote: {shown['own']}"))
    if shown["verdict"]:
        lines.append(Text(f"your verdict: {shown['verdict']}" + (f" ({shown['label']})" if shown["label"] else "")))
    if shown["categories"]:
        lines.append(Text(f"category: {shown['category'] or 'none chosen'}"))
    if shown["note"]:
        lines.append(Text(f"note: {shown['note']}"))
    lines.extend(Text(f"begun {field}: {text}", style="italic") for field, text in shown["drafts"].items())
    return lines
