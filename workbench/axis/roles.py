"""Roles: the characters that a model is asked to play, each with its system prompts and the rubric that says how fully it did.

Names are those of the 275 archetypes of Lu et al. 2026 (arXiv 2601.10387); every prompt, description and rubric was written here.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from workbench.base.display import Shown
from workbench.base.errors import unknown_name
from workbench.base.store import content_hash, read_json, read_text
from workbench.personas.fields import Fields, fields, refuse_repeats

DATA = Path(__file__).parent / "data"
DEFAULT = "default"
N_PROMPTS = 5
ROLE_SCHEMA = 1
MODEL_NAME = "{model_name}"
ASSISTANT_END = ("evaluator", "reviewer", "consultant", "generalist", "interpreter", "synthesizer", "coordinator", "supervisor")
FAR_END = ("ghost", "hermit", "bohemian", "leviathan", "bard", "pirate", "fool", "zealot", "narcissist", "poet")
"""The two published ends of the axis (Lu et al. 2026): nearest to the assistant, and farthest from it."""


@dataclass(frozen=True, repr=False)
class Role(Shown):
    """A character to be played.

    prompts: system prompts; "" is no system message; `{model_name}` stands for the model's name. description: one sentence on who
    speaks and how. rubric: grades 0 to 3 how fully an answer plays the role, with the marks {question} and {answer}. group: for
    reading only, never used in a statistic. questions: the role's own questions, which published role files bring along.
    """

    name: str
    prompts: tuple[str, ...]
    description: str
    rubric: str
    group: str | None = None
    questions: tuple[str, ...] = ()

    @property
    def hash(self) -> str:
        """sha256 of all texts of the role (64 hexadecimal digits)."""
        return content_hash(asdict(self))

    @property
    def title(self) -> str:
        """The name as one reads it: "coral reef"."""
        return self.name.replace("_", " ")

    def called(self, model_name: str) -> Role:
        """The role with the model's name in the place of `{model_name}` in its prompts."""
        return replace(self, prompts=tuple(prompt.replace(MODEL_NAME, model_name) for prompt in self.prompts))


def load_roles(names: Sequence[str] | None = None, folder: str | Path | None = None) -> tuple[Role, ...]:
    """The roles of these names in this order; without names all of `folder`, or all that the package ships.

    folder: role files of your own, `NAME.json` as `workbench.axis.exchange` reads them; they go before shipped ones of the same
    name. Raises WorkbenchError for a name that nobody knows, or one that is asked for twice.
    """
    own = _own(folder) if folder is not None else {}
    if names is None:
        return tuple((own or _shipped()).values())
    known = {**_shipped(), **own}
    refuse_repeats([(f"role {i}", name) for i, name in enumerate(names, start=1)], "name", "The list of roles")
    for name in names:
        if name not in known:
            raise unknown_name("role", name, known)
    return tuple(known[name] for name in names)


def role_names() -> tuple[str, ...]:
    """The names of all shipped roles, sorted; the default assistant is not among them."""
    return tuple(_shipped())


def default_role() -> Role:
    """The default assistant: no system message, and prompts that say no more than what the model is."""
    return _others()["default"][0]


def jailbreak_personas() -> tuple[Role, ...]:
    """Twenty characters that dress a request up, mild and general, and one of the group "control": the plain assistant.

    For tests of persona-based jailbreaks; their texts hold nothing harmful.
    """
    return _others()["jailbreak"]


def gardener_levels() -> tuple[Role, ...]:
    """One persona, the Gardener, at four levels of specification: label, duties, values, and a document of its character.

    Methodical, incremental, scope-constrained work on a codebase or a text; one system prompt per level.
    """
    return _others()["gardener"]


def rubric_for(title: str, description: str) -> str:
    """The common rubric (0 to 3) with the role put in; {question} and {answer} stay for the judge to fill."""
    text = read_text(DATA / "rubric.txt").strip()
    return text.replace("{role}", title).replace("{description}", description)


def read_role(item: Fields, name: str, *, n_prompts: int | None = None) -> Role:
    """A role from its mapping {description, prompts, group}; refuses prompts that are none, repeated or too few."""
    prompts = item.value("prompts")
    if not isinstance(prompts, list) or not all(isinstance(text, str) for text in prompts):
        raise item.wrong("'prompts' is no list of texts.", "A list of system prompts.", "Write 'prompts' there.")
    if n_prompts is not None and len(prompts) != n_prompts:
        raise item.wrong(f"it has {len(prompts)} prompts.", f"{n_prompts} system prompts.", "Add or remove some.")
    refuse_repeats([(f"prompt {i}", text) for i, text in enumerate(prompts, start=1)], "prompt", item.place)
    description = item.text("description")
    group = item.text("group") if "group" in item.values else None
    return Role(name, tuple(prompts), description, rubric_for(name.replace("_", " "), description), group)


@functools.cache
def _shipped() -> dict[str, Role]:
    """Name -> role of all files in data/roles."""
    roles: dict[str, Role] = {}
    for path in sorted((DATA / "roles").glob("*.json")):
        roles |= {role.name: role for role in _roles_in(_document(path).nested("roles"), N_PROMPTS)}
    return dict(sorted(roles.items()))


@functools.cache
def _others() -> dict[str, tuple[Role, ...]]:
    """Kind -> roles of data/others.json: the default, jailbreak personas, levels of the Gardener."""
    kinds = _document(DATA / "others.json").nested("roles")
    return {kind: _roles_in(kinds.nested(kind)) for kind in kinds.values}


def _roles_in(entries: Fields, n_prompts: int | None = None) -> tuple[Role, ...]:
    return tuple(read_role(entries.nested(name), name, n_prompts=n_prompts) for name in entries.values)


def _document(path: Path) -> Fields:
    document = fields(read_json(path), path.name)
    if document.value("schema") != ROLE_SCHEMA:
        raise document.wrong(f"schema {document.value('schema')!r}.", f"Schema {ROLE_SCHEMA}.", "Update the workbench.")
    return document


def _own(folder: str | Path) -> dict[str, Role]:
    from workbench.axis.exchange import read_roles

    return {role.name: role for role in read_roles(folder)}
