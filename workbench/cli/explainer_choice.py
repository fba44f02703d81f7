"""Which explainer a command is to use, named without loading anything."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .inputs import model_identity

if TYPE_CHECKING:
    from workbench.labeling.contexts.reading import Collection
    from workbench.labeling.explainers.protocol import Explainer


@dataclass(frozen=True)
class ExplainerChoice:
    """An explainer's name with the settings of those that have a model, and what an endpoint may cost."""

    name: str = "offline"
    model: str | None = None
    """What an endpoint calls its model, or what the local explainer loads; None takes the setting explainer_model."""
    base_url: str | None = None
    """Where an endpoint is; None takes the setting explainer_url."""
    price_in: float | None = None
    price_out: float | None = None
    max_cost: float | None = None
    max_tokens: int | None = None
    """The longest answer, thinking included; None leaves it to the explainer."""

    def identity(self) -> dict[str, Any]:
        """What decides the labels: the name, the endpoint and its model, or the local model's weights, and the prompt. An unknown
        name, or an explainer that lacks something, is an error."""
        from workbench.labeling.explainers.prompt import PROMPT_VERSION
        from workbench.labeling.explainers.protocol import ENDPOINTS, make_explainer

        made: Any = make_explainer(self.name, model=self.model, base_url=self.base_url, **self._options())
        if self.name in ENDPOINTS:
            return {**made.description(), "prompt": PROMPT_VERSION}
        if self.name == "local":
            return {"name": self.name, "model": model_identity(made.source), "prompt": PROMPT_VERSION}
        return {"name": self.name}

    def make(self, collection: Collection) -> Explainer:
        """The explainer with the contexts of a collection to set against those where a feature fires."""
        from workbench.labeling.explainers.protocol import explainer_for

        return explainer_for(self.name, collection, model=self.model, base_url=self.base_url, **self._options())

    def _options(self) -> dict[str, Any]:
        from workbench.labeling.explainers.budget import Prices
        from workbench.labeling.explainers.protocol import ENDPOINTS

        prices = Prices(self.price_in, self.price_out)  # a price that is none is refused for every explainer
        longest = {} if self.max_tokens is None else {"max_tokens": self.max_tokens}
        if self.name in ENDPOINTS:
            return {"prices": prices, "max_cost": self.max_cost, "tell": _tell, **longest}
        return longest if self.name == "local" else {}


def _tell(text: str) -> None:
    print(text, file=sys.stderr)  # with --quiet as well: it is about money
