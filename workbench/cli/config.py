"""What the main job is run on: one frozen value that the flags and settings describe."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from workbench.models.servers import ChatServer
    from workbench.personas.rollouts import RolloutDesign

STAGES = ("vector", "decomposition", "labels", "report")


@dataclass(frozen=True)
class JobConfig:
    """What the main job is run on."""

    trait: str = "evil"
    """Name or folder of the trait."""
    model: str = "smollm2-135m-instruct"
    """Catalogue name, folder, GGUF file or hub id of the model."""
    sae: str | None = None
    """Id or folder of the SAE; None takes the one on the shelf for the model."""
    hook: str | None = None
    """Hook point of the vector; None takes the SAE's site, "auto" lets the extraction questions choose."""
    judge: str | None = None
    """Which judge filters the rollouts; None takes "offline" where it knows the trait, else "none"."""
    judge_model: str | None = None
    """The model of the judges "openai", "anthropic" and "local"; None takes the setting."""
    judge_url: str | None = None
    """Where the judges "openai" and "anthropic" ask; None takes the setting base_url."""
    generate_with: str | None = None
    """Address of the chat server that samples the answers; None: the model itself does."""
    generate_model: str | None = None
    """That server's name for the same model."""
    explainer: str = "offline"
    """Who names the features that have no label yet: "offline", "openai", "anthropic" or "local"."""
    explainer_model: str | None = None
    """The model of the explainers other than "offline"; None takes the setting."""
    explainer_url: str | None = None
    """Where the explainers "openai" and "anthropic" ask; None takes the setting."""
    seed: int = 0
    """Seed of everything that is drawn."""
    n_features: int = 30
    """How many of the largest features get labels and rows in the report."""
    n_samples: int = 1
    """Answers per question, instruction and arm."""
    max_new_tokens: int = 64
    """Longest answer, in tokens."""
    batch_size: int = 32
    """Answers that are sampled together (part of what makes a run the same)."""
    dtype: str = "float32"
    """Type of the model's weights."""
    device: str | None = None
    """Where the model runs; None takes a GPU if there is one, "auto" spreads it over all devices."""
    max_memory: str | None = None
    """Bound of weights, caches and batches together ("12GiB"); None: none."""
    strict: bool = False
    """Refuse an SAE that fails the fitness gate, or whose fitness nobody measured."""
    choose: str | None = None
    """How the block is chosen ("separability" or "causal") instead of the SAE's site; None leaves `hook` to say."""

    @property
    def design(self) -> RolloutDesign:
        """The rollouts to sample; refuses counts below 1."""
        from workbench.models.sampling import Sampling
        from workbench.personas.rollouts import RolloutDesign

        sampling = Sampling(max_new_tokens=self.max_new_tokens)
        return RolloutDesign(n_samples=self.n_samples, batch_size=self.batch_size, sampling=sampling)

    @property
    def memory_budget(self) -> int | None:
        """`max_memory` in bytes; refuses what is no size."""
        from workbench.base.sizes import parse_size

        return None if self.max_memory is None else parse_size(self.max_memory)

    @property
    def server(self) -> ChatServer | None:
        """Who samples instead of the model, if anyone; refuses an address without a name and the reverse."""
        from workbench.models.servers import chosen_server

        return chosen_server(self.generate_with, self.generate_model)
