"""A role written by a chat model from one sentence: its description and five prompts, checked, as a role file."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Any

from workbench.axis.exchange import write_roles
from workbench.axis.roles import DATA, N_PROMPTS, Role, rubric_for
from workbench.base.errors import WorkbenchError
from workbench.base.store import read_yaml
from workbench.models.endpoints import ChatEndpoint, EndpointConfig
from workbench.personas.drafts import Drafting, Item, Part
from workbench.personas.traits import check_name

_WORDS = (10, 40)


@dataclass(frozen=True)
class WrittenRole:
    """A role that a model wrote, its file, and how often something had to be asked for again."""

    file: Path
    role: Role
    asked_again: int


def write_new_role(
    name: str,
    wish: str,
    *,
    out: str | Path = "roles",
    model: str | None = None,
    base_url: str | None = None,
    sample: int = 0,
    cache_folder: Path | None = None,
    **options: Any,
) -> WrittenRole:
    """Let a chat model write the role `name` as `wish` describes it, into `<out>/<name>.json`.

    The rest as in `personas.writing.write_new_trait`. `load_roles(folder=out)` reads it back. Raises WorkbenchError for a file
    that exists, a refused request, or a part that is still wrong after four answers; then nothing is written.
    """
    check_name(name, "The new role")
    file = Path(out) / f"{name}.json"
    if file.exists():
        raise WorkbenchError(f"{file} exists already", "a new name", "choose another name, or another folder")
    if not wish.strip():
        raise WorkbenchError("the description is empty", "a sentence on the role", 'give it with --describe "..."')
    config = EndpointConfig.from_settings(model=model, base_url=base_url, **options)
    with ChatEndpoint(config, cache_folder) as endpoint:
        drafting = Drafting(endpoint, _texts()["system"], _texts()["again"], sample=sample)
        role = _written(name, " ".join(wish.split()), drafting)
    write_roles([role], out)
    return WrittenRole(file, role, sum(drafting.repeats.values()))


def _written(name: str, wish: str, drafting: Drafting) -> Role:
    title = name.replace("_", " ").replace("-", " ")
    ask = lambda part, n, **rules: drafting.ask(  # noqa: E731
        Part(part, Template(_texts()[part]).substitute(title=title, wish=wish, n=n), n, **rules)
    )
    (told,) = ask("description", 1, texts={"text": (6, 40)})
    prompts = ask("prompts", N_PROMPTS, texts={"text": _WORDS}, unique=("text",), check=_too_alike)
    return Role(name, tuple(one["text"] for one in prompts), told["text"], rubric_for(title, told["text"]))


def _too_alike(item: Item, accepted: Sequence[Item]) -> Iterable[str]:
    """Prompts that begin with the same four words are one prompt twice."""
    start = item["text"].casefold().split()[:4]
    if any(other["text"].casefold().split()[:4] == start for other in accepted):
        yield "'text' begins like another prompt; begin in another way"


@functools.cache
def _texts() -> Any:
    return read_yaml(DATA / "writing.yaml")
