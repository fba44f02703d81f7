"""SAEs for a planted world, and the truth about each of their latents: perfect, noisy, split, absorbed, trained."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from workbench.base.display import Shown
from workbench.base.errors import unknown_name
from workbench.base.randomness import derive_seed, generator
from workbench.base.tensors import tensor_hash
from workbench.maths.geometry import signed_cosines
from workbench.saes.interface import SparseAutoencoder

from .difficulties import Difficulty
from .experiment import HOOK, sample_tokens
from .world import World

MATCH_COSINE = 0.7
"""A latent stands for the true feature of the largest decoder cosine, if that is at least so large."""
SILENT = 1e-3  # codes below are rounding
NOISE_COSINE, NOISE_THRESHOLD = 0.9, 0.25
TRAINING_TOKENS, TRAINING_STEPS = 65_536, 1_000


@dataclass(frozen=True, eq=False, repr=False)
class Truth(Shown):
    """What is true of each latent of an SAE in a world.

    `change [d_sae]` is the sign (-1, 0, 1) of positive minus negative arm of the latent's mean code in the population:
    0 is a null latent. `feature [d_sae]` is the true feature that it stands for (-1 = none). `by` says where `change` is
    from: "codes" (the code is a known function of the true activations) or "matching" (the sign of the matched feature's
    change; a latent without a match is null, so that what leaks into it counts as false).
    """

    change: Tensor
    feature: Tensor
    by: str


def _nothing() -> Tensor:
    return torch.zeros(0, dtype=torch.int64)


@dataclass(frozen=True, eq=False, repr=False)
class ExactSAE(SparseAutoencoder, Shown):
    """An SAE whose codes are known functions of the true activations, which its encoder reads off a token exactly.

    Latents `silenced [m]` are silent wherever `by [m]` fires. With `moved_to [m]` what was silenced appears in those
    latents instead (feature splitting); without, it is lost (absorption). Latents beyond the encoder's are those of `moved_to`.
    """

    silenced: Tensor = field(default_factory=_nothing)
    by: Tensor = field(default_factory=_nothing)
    moved_to: Tensor | None = None

    def encode(self, x: Tensor) -> Tensor:
        """Codes of x [..., d_model] as [..., d_sae]."""
        true = super().encode(x)
        codes = torch.cat([true, true.new_zeros(*true.shape[:-1], self.d_sae - true.shape[-1])], dim=-1)
        elsewhere = true[..., self.silenced] * (true[..., self.by] > 0)
        codes[..., self.silenced] -= elsewhere
        if self.moved_to is not None:
            codes[..., self.moved_to] = elsewhere
        return codes


Builder = Callable[[World, int], Any]


def perfect(world: World, seed: int = 0) -> ExactSAE:
    """The true directions, and an encoder that reads the true activations off a token exactly (their pseudo-inverse)."""
    return _sae(ExactSAE, "perfect", world, world.directions, world.directions)


def noisy(world: World, seed: int = 0) -> SparseAutoencoder:
    """Directions off the true ones (cosine about .9), their pseudo-inverse as encoder, and a threshold: codes leak a little."""
    source = generator(derive_seed("lab", "noisy", seed))
    noise = normalize(torch.randn(world.directions.shape, generator=source), dim=1)
    directions = normalize(NOISE_COSINE * world.directions + (1 - NOISE_COSINE**2) ** 0.5 * noise, dim=1)
    return _sae(SparseAutoencoder, "noisy", world, directions, directions, threshold=NOISE_THRESHOLD)


def split(world: World, seed: int = 0) -> ExactSAE:
    """Each of the third of the features that fire most is two latents: one where some other feature fires, one elsewhere."""
    halves, every = torch.arange(world.n_features // 3), torch.arange(world.n_features)
    family = (world.parent >= 0) | torch.isin(every, world.parent)
    contexts = every[(world.change == 0) & ~family][: world.n_features // 4]
    source = generator(derive_seed("lab", "split", seed))
    place = torch.randint(len(contexts), (len(halves),), generator=source)
    place = torch.where(contexts[place] == halves, (place + 1) % len(contexts), place)
    decoder = torch.cat([world.directions, world.directions[halves]])
    moved = world.n_features + halves
    return _sae(ExactSAE, "split", world, decoder, world.directions, silenced=halves, by=contexts[place], moved_to=moved)


def absorbed(world: World, seed: int = 0) -> ExactSAE:
    """Each parent's latent is silent where its first child fires, whose latent carries the parent's direction as well.

    Feature absorption (Chanin et al. 2024, arXiv 2409.14507). A world without families has nothing to absorb.
    """
    parents, children = _families(world)
    decoder = world.directions.clone()
    ratio = world.strengths[parents] / world.strengths[children]
    decoder[children] += ratio[:, None] * world.directions[parents]
    return _sae(ExactSAE, "absorbed", world, decoder, world.directions, silenced=parents, by=children)


def trained(world: World, seed: int = 0) -> SparseAutoencoder:
    """A batch top-k SAE with twice as many latents as there are features, trained by `saes.training` on tokens of the world."""
    from workbench.saes.activations import HeldActivations
    from workbench.saes.training import TrainingConfig, recalibrate, train

    tokens = sample_tokens(world, TRAINING_TOKENS, seed)
    l0 = float(world.rates(0).sum())
    shards = [(part, torch.ones(len(part), dtype=torch.bool)) for part in tokens.split(16_384)]
    manifest = {"key": tensor_hash(tokens), "model": {"name": model_name(world)}, "hook": str(HOOK), "d_model": tokens.shape[1]}
    config = TrainingConfig(
        d_sae=2 * world.n_features, k=l0, batch_size=512, n_steps=TRAINING_STEPS, learning_rate=2e-3, precision="float32",
        seed=seed, dead_after_tokens=50_000, log_every=500, checkpoint_every=TRAINING_STEPS,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        sae = train(HeldActivations(shards, manifest), config, Path(folder))
    return recalibrate(replace(sae, weights_hash=tensor_hash(sae.decoder_directions)), tokens[:16_384], l0)


SAES: dict[str, Builder] = {"perfect": perfect, "noisy": noisy, "split": split, "absorbed": absorbed, "trained": trained}
"""The SAEs of the laboratory: a function (world, seed) -> SAE and one line here."""


def builder_of(sae: str | Builder) -> Builder:
    """The builder with this name (a function stands for itself). Raises WorkbenchError for an unknown name."""
    if callable(sae):
        return sae
    if sae not in SAES:
        raise unknown_name("SAE of the laboratory", sae, SAES)
    return SAES[sae]


def fit_for(builder: Builder, difficulty: Difficulty) -> Difficulty:
    """The difficulty with families of features where the SAE needs them: without a hierarchy nothing can be absorbed."""
    needs = builder is absorbed and not difficulty.n_parents
    return replace(difficulty, n_parents=6) if needs else difficulty


def truth_of(world: World, sae: Any) -> Truth:
    """What is true of each latent: from the codes of an `ExactSAE`, by matching for every other SAE."""
    sign, feature = world.change.sign().long(), match(world, sae)
    if not isinstance(sae, ExactSAE):
        return Truth(torch.where(feature >= 0, sign[feature.clamp_min(0)], 0), feature, "matching")
    change, standing = torch.zeros(sae.d_sae, dtype=torch.int64), torch.arange(sae.d_sae)
    change[: world.n_features] = sign
    change[sae.silenced] = _change_beside(world, sae.silenced, sae.by, fires=False)
    if sae.moved_to is not None:
        change[sae.moved_to] = _change_beside(world, sae.silenced, sae.by, fires=True)
        standing[sae.moved_to] = sae.silenced
    return Truth(change, standing, "codes")


def match(world: World, sae: Any) -> Tensor:
    """The true feature of the largest cosine with each decoder row `[d_sae]`, -1 where that is below `MATCH_COSINE`."""
    best = signed_cosines(sae.decoder_directions.detach().float().cpu(), world.directions).max(dim=1)
    return torch.where(best.values >= MATCH_COSINE, best.indices, -1)


def model_name(world: World) -> str:
    """The name of the model that a world stands for."""
    return f"lab/{world.difficulty.name}"


def _change_beside(world: World, features: Tensor, others: Tensor, *, fires: bool) -> Tensor:
    """Sign of the change of a feature's mean activation where another one fires, or does not, `[m]`."""

    def mean(sign: int) -> Tensor:
        rate = world.rates(sign)[others]
        return world.mean_codes(sign)[features] * (rate if fires else 1 - rate)

    return (mean(1) - mean(-1)).sign().long()


def _families(world: World) -> tuple[Tensor, Tensor]:
    """(parents, their first children)."""
    parents = world.parent[world.parent >= 0].unique()
    children = torch.tensor([int((world.parent == one).nonzero()[0]) for one in parents], dtype=torch.int64)
    return parents, children


def _sae(kind: type, name: str, world: World, decoder: Tensor, read: Tensor, *, threshold: float = SILENT, **more: Any) -> Any:
    """An SAE on raw activations that subtracts the world's bias and encodes by the pseudo-inverse of the directions `read`."""
    encoder = torch.linalg.pinv(read.double()).float()
    return kind(
        id=f"{model_name(world)}/{HOOK}#{name}", hook=HOOK, model_name=model_name(world), architecture="jumprelu",
        encoder=encoder, encoder_bias=torch.zeros(len(read)), decoder_directions=decoder, decoder_bias=world.bias,
        threshold=torch.full((len(read),), threshold), weights_hash=tensor_hash(decoder), **more,
    )  # fmt: skip
