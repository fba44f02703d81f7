"""Which judge a job is to use, named without loading anything."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.base.errors import WorkbenchError, unknown_name

from .console import note
from .inputs import folder_hash, model_identity

if TYPE_CHECKING:
    from workbench.personas.judges import Judge

    from .stages import JobConfig

HEAD_JUDGES = ("offline", "offline-outcome")
ENDPOINTS = ("openai", "anthropic")


@dataclass(frozen=True)
class JudgeChoice:
    """A judge's name with the settings of those judges that have a model."""

    name: str
    model: str | None = None
    """What an endpoint calls its model, or what the local judge loads; None takes the setting judge_model."""
    base_url: str | None = None
    """Where an endpoint is; None takes the setting base_url."""

    def identity(self, trait: str) -> dict[str, Any]:
        """What decides the scores: the name, the shipped head for the trait, the endpoint and its model, or the local
        judge's weights. An unknown name, or a judge that lacks something, is an error."""
        from workbench.personas.judges import COHERENCE, list_judges

        if self.name not in list_judges():
            raise unknown_name("judge", self.name, list_judges())
        if self.name in HEAD_JUDGES and not has_head(self.name, trait):
            raise WorkbenchError(
                f"the judge {self.name!r} has no head for the trait {trait!r}",
                "a trait that it was trained for",
                "use a judge that reads the rubric (--judge openai, anthropic or local), or --judge none to keep every response",
            )
        head = folder_hash(_head_folder(self.name, trait))
        shared = {"name": self.name, "head": head, "coherence": COHERENCE}
        return {**shared, "endpoint": self._endpoint(), **self._local()}

    def _endpoint(self) -> list[str] | None:
        if self.name not in ENDPOINTS:
            return None
        from workbench.models.endpoints import EndpointConfig

        config = EndpointConfig.from_settings(model=self.model, base_url=self.base_url, dialect=self.name)
        return [config.base_url, config.model]

    def _local(self) -> dict[str, Any]:
        if self.name != "local":
            return {}
        from workbench.base.settings import setting

        name = setting("judge_model", self.model)
        if not name:
            raise WorkbenchError("the judge 'local' has no model", "a model's name, folder, GGUF file or hub id",
                                 "give --judge-model, or set WORKBENCH_JUDGE_MODEL")  # fmt: skip
        return {"model": model_identity(str(name)), "dtype": self.dtype}

    @property
    def dtype(self) -> str | None:
        """The type of a local judge's weights, which is a setting; None for the other judges."""
        from workbench.base.settings import setting

        return str(setting("judge_dtype", None, "float32")) if self.name == "local" else None

    def make(self) -> Judge:
        """The judge itself."""
        from workbench.personas.judges import make_judge

        options = {"model": self.model} if self.name in (*ENDPOINTS, "local") else {}
        return make_judge(
            self.name, **options, **({"base_url": self.base_url} if self.name in ENDPOINTS else {})
        )


def choose_judge(config: JobConfig, trait: str) -> JudgeChoice:
    """The judge that the job names; else "offline" where it knows the trait, else "none", which is said."""
    name = config.judge or ("offline" if has_head("offline", trait) else "none")
    if not config.judge and name == "none":
        note(f"no offline judge knows {trait}: all responses are kept, unjudged (or name one with --judge)")
    return JudgeChoice(name, config.judge_model, config.judge_url)


def what_was_judged(evidence: Mapping[str, Any], folder: Path) -> str:
    """One line on the outcomes over all arms, and how to have failed replies judged again."""
    total: Counter[str] = Counter()
    for part in ("kept_counts", "evaluation_counts"):
        for arm in (evidence.get(part) or {}).values():
            total.update(arm)
    scored = sum(total[name] for name in ("kept", "wrong_side", "incoherent"))
    others = [f"{total[name]} {name}" for name in ("refused", "failed", "unjudged", "empty") if total[name]]
    said = f"judged {total['rows']} replies: {', '.join([f'{scored} scored', *others])}"
    again = f"; to have the failed ones judged, remove {folder / 'vector'} and run again (nothing else is asked again)"
    return said + (again if total["failed"] else "")


def has_head(judge: str, trait: str) -> bool:
    """Whether a head of this offline judge ships for the trait."""
    return _head_folder(judge, trait).is_dir()


def _head_folder(judge: str, trait: str) -> Path:
    from workbench.personas import judges

    return Path(judges.__file__).parent / "data" / f"{trait}-{judge}"
