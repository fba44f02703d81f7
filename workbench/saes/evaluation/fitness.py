"""How well an SAE fits its model and site: variance explained, L0, firing densities, and the loss with the SAE spliced in.

Where the definitions are those of `sae_lens.evals` (6.54), a test holds the numbers equal on the same tokens:
`variance_explained` = `explained_variance`, `l0`, `cosine` = `cossim`, `norm_ratio` = `l2_ratio`, `ce_clean`, `ce_sae`,
`ce_zero` = `ce_loss_without_sae`, `_with_sae`, `_with_ablation`, `ce_recovered` = `ce_loss_score`. What differs: SAELens reads
and replaces every token; here position 0 and norm sinks are neither read nor replaced, and stay in the zeroed run as well
(`n_skipped=0, sink_ratio=None` gives SAELens' choice). SAELens averages the KL over all positions; here, as for the loss, over
those that predict a token of the text, so that the last position of a row does not count.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from workbench.base.display import Shown
from workbench.base.progress import track

if TYPE_CHECKING:
    from torch import Tensor

    from workbench.models.loading import Model
    from workbench.saes.interface import SparseAutoencoder

SINK_RATIO = 10.0
"""A token whose norm is above so many medians of the model at the hook is a sink."""
DENSE = 0.1
"""A feature that fires on more than this share of the tokens is called dense."""
VALUES_AT_ONCE = 2**24
"""Codes or logits held at once (64 MiB of float32), whatever the dictionary or the vocabulary."""
HISTOGRAM = tuple(-5 + 0.5 * i for i in range(11))
"""Edges of the density histogram, log10 of the share of tokens; -5 to 0."""


class Row(Protocol):
    """Anything with token ids: a `TokenRow`, a `ChatTokens`."""

    @property
    def ids(self) -> Sequence[int]:
        """Token ids."""
        ...


@dataclass(frozen=True, repr=False)
class Fitness(Shown):
    """One token set's figures; all over tokens that are neither skipped positions nor norm sinks.

    `variance_explained` = 1 - sum |h - h_hat|^2 / sum |h - mean h|^2. `ce_*` in nats per predicted token: `ce_clean`
    without intervention, `ce_sae` with h replaced by its reconstruction, `ce_zero` with h replaced by 0;
    `ce_recovered` = (ce_zero - ce_sae) / (ce_zero - ce_clean); `kl` of the clean from the spliced distribution, `kl_zero`
    from the zeroed one, `kl_recovered` = 1 - kl / kl_zero. `dead_share` counts features that fire on none of these
    `n_tokens` (few tokens make it large), `dense_share` those that fire on more than a tenth; `density_histogram` counts
    features by log10 of their firing share: those that never fire, then the bins between the edges of `HISTOGRAM`.
    """

    n_tokens: int
    variance_explained: float
    l0: float
    cosine: float
    norm_ratio: float
    ce_clean: float
    ce_sae: float
    ce_zero: float
    ce_recovered: float
    kl: float
    kl_zero: float = float("nan")
    kl_recovered: float = float("nan")
    dead_share: float = float("nan")
    dense_share: float = float("nan")
    density_histogram: list[int] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """The figures by name."""
        return asdict(self)


def evaluate(
    sae: SparseAutoencoder,
    model: Model,
    rows: Sequence[Row],
    *,
    batch_tokens: int = 2048,
    n_skipped: int = 1,
    sink_ratio: float | None = SINK_RATIO,
    label: str = "Evaluating the SAE",
) -> Fitness:
    """Fitness of the SAE on the rows' tokens; the same tokens are replaced in the spliced and the zeroed runs.

    The first `n_skipped` positions of a row and tokens whose norm exceeds `sink_ratio` medians (None: no limit) are left
    alone. Raises WorkbenchError when no token is left, or when the SAE is not as wide as the model.
    """
    return evaluate_all(
        [sae], model, rows, batch_tokens=batch_tokens, n_skipped=n_skipped, sink_ratio=sink_ratio, label=label
    )[0]


def evaluate_all(
    saes: Sequence[SparseAutoencoder],
    model: Model,
    rows: Sequence[Row],
    *,
    batch_tokens: int = 2048,
    n_skipped: int = 1,
    sink_ratio: float | None = SINK_RATIO,
    label: str = "Evaluating SAEs",
) -> list[Fitness]:
    """Fitness of several SAEs at one hook, in their order; the clean and the zeroed run are shared."""
    from workbench.models.capture import padded, plan_batches

    hook = check_site(saes, model)
    medians = model.norm_medians([hook])
    limit = float("inf") if sink_ratio is None else sink_ratio * float(medians[0])
    sums = [_Sums(sae.d_model, sae.d_sae) for sae in saes]
    with track(label, total=sum(len(row.ids) for row in rows), unit="tokens") as step:
        for indices in plan_batches([len(row.ids) for row in rows], batch_tokens):
            ids, mask = padded([rows[i].ids for i in indices], pad=0)
            _one_batch(saes, model, ids, mask, (n_skipped, limit), sums)
            step(int(mask.sum()))
    return [one.fitness() for one in sums]


def check_site(saes: Sequence[SparseAutoencoder], model: Model) -> Any:
    """The hook that all the SAEs read; WorkbenchError when they differ in it or are not as wide as the model."""
    from workbench.base.errors import WorkbenchError

    for sae in saes:
        if sae.hook != saes[0].hook:
            raise WorkbenchError(
                f"{sae.id} reads {sae.hook}, {saes[0].id} reads {saes[0].hook}",
                "SAEs of one hook point, so that they share the captured activations",
                "evaluate them one by one",
            )
        if sae.d_model != model.d_model:
            raise WorkbenchError(
                f"{sae.id} reads d_model={sae.d_model} but {model.name} has {model.d_model}",
                "an SAE of this model",
                f"give its model with --model ({sae.model_name})",
            )
    return saes[0].hook


def pieces(tensor: Tensor, width: int) -> Iterator[Tensor]:
    """The rows of `tensor` in parts whose codes (or logits) of that width stay below `VALUES_AT_ONCE`."""
    yield from tensor.split(max(1, VALUES_AT_ONCE // max(width, 1)))


def _one_batch(
    saes: Sequence[SparseAutoencoder],
    model: Model,
    ids: Tensor,
    mask: Tensor,
    kept: tuple[int, float],
    sums: Sequence[_Sums],
) -> None:
    """The rows run side by side: clean, zeroed, then once per SAE with its reconstruction in place."""
    import torch

    n_copies = 2 + len(saes)

    def splice(acts: Tensor) -> Tensor:
        clean = acts.chunk(n_copies)[0]
        keep = mask.bool().to(acts.device).clone()
        keep[:, : kept[0]] = False
        keep &= clean.float().norm(dim=-1) <= kept[1]
        flat = clean[keep].float()
        zeroed = clean.clone()
        zeroed[keep] = 0.0
        copies = [clean, zeroed]
        for sae, one in zip(saes, sums, strict=True):
            spliced = clean.clone()
            spliced[keep] = _rebuilt(sae, flat, one).to(acts.device, acts.dtype)
            copies.append(spliced)
        return torch.cat(copies)

    repeated = ids.repeat(n_copies, 1).to(model.device), mask.repeat(n_copies, 1).to(model.device)
    with torch.inference_mode(), model.hooked({saes[0].hook: splice}):
        hidden = model.decoder(
            input_ids=repeated[0], attention_mask=repeated[1], use_cache=False
        ).last_hidden_state
        _add_losses(model, hidden, ids, mask, sums)


def _rebuilt(sae: SparseAutoencoder, flat: Tensor, sums: _Sums) -> Tensor:
    """Reconstructions [n, d_model], counted on the way; codes exist for a part of the tokens at a time."""
    import torch

    parts = []
    for part in pieces(flat, sae.d_sae):
        codes = sae.encode(part)
        rebuilt = sae.decode(codes)
        sums.add_activations(part, rebuilt, codes)
        parts.append(rebuilt)
    return torch.cat(parts) if parts else flat


def _add_losses(model: Model, hidden: Tensor, ids: Tensor, mask: Tensor, sums: Sequence[_Sums]) -> None:
    """Cross-entropies and divergences of every predicted token, a part of the positions at a time."""
    import torch

    weight = mask[:, 1:].bool()
    targets = ids[:, 1:][weight].to(hidden.device)
    runs = [copy[:, :-1][weight.to(hidden.device)] for copy in hidden.chunk(2 + len(sums))]
    for chosen in pieces(torch.arange(len(targets), device=hidden.device), 3 * model.vocab_size):
        target = targets[chosen].unsqueeze(1)

        def log_p(run: Tensor, chosen: Tensor = chosen) -> Tensor:
            return model.logits_of(run[chosen]).float().log_softmax(-1)

        clean, zeroed = log_p(runs[0]), log_p(runs[1])
        p, target = clean.exp(), target.to(clean.device)
        shared = [-float(part.gather(1, target).sum()) for part in (clean, zeroed)]
        kl_zero = float((p * (clean - zeroed)).sum())
        del zeroed
        for one, run in zip(sums, runs[2:], strict=True):
            spliced = log_p(run)
            losses = [shared[0], -float(spliced.gather(1, target).sum()), shared[1]]
            one.add_losses(len(target), losses, float((p * (clean - spliced)).sum()), kl_zero)


class _Sums:
    """Running sums in float64."""

    def __init__(self, d_model: int, d_sae: int) -> None:
        import torch

        self.n = 0
        self.n_predictions = 0
        self.total = torch.zeros(d_model, dtype=torch.float64)
        self.fired = torch.zeros(d_sae, dtype=torch.float64)
        self.square = self.error = self.cosine = self.ratio = 0.0
        self.ce = [0.0, 0.0, 0.0]
        self.kl = self.kl_zero = 0.0

    def add_activations(self, h: Tensor, r: Tensor, codes: Tensor) -> None:
        import torch

        self.fired += (codes != 0).sum(0).cpu().double()
        h, r = h.cpu().double(), r.cpu().double()
        self.n += len(h)
        self.total += h.sum(0)
        self.square += float(h.square().sum())
        self.error += float((h - r).square().sum())
        self.cosine += float(torch.nn.functional.cosine_similarity(h, r, dim=1).sum())
        self.ratio += float((r.norm(dim=1) / h.norm(dim=1)).sum())

    def add_losses(self, n: int, losses: Sequence[float], kl: float, kl_zero: float) -> None:
        self.n_predictions += n
        self.ce = [known + more for known, more in zip(self.ce, losses, strict=True)]
        self.kl += kl
        self.kl_zero += kl_zero

    def fitness(self) -> Fitness:
        from workbench.base.errors import WorkbenchError

        if not self.n or not self.n_predictions:
            raise WorkbenchError(
                f"no token is left to measure on ({self.n} activations, {self.n_predictions} predictions)",
                "rows of several tokens that are not all sinks",
                "give longer texts",
            )
        variance = self.square - float(self.total.square().sum()) / self.n
        clean, spliced, zeroed = (value / self.n_predictions for value in self.ce)
        shares = self.fired / self.n
        return Fitness(
            n_tokens=self.n,
            variance_explained=1 - self.error / variance,
            l0=float(shares.sum()),
            cosine=self.cosine / self.n,
            norm_ratio=self.ratio / self.n,
            ce_clean=clean,
            ce_sae=spliced,
            ce_zero=zeroed,
            ce_recovered=(zeroed - spliced) / (zeroed - clean),
            kl=self.kl / self.n_predictions,
            kl_zero=self.kl_zero / self.n_predictions,
            kl_recovered=1 - self.kl / self.kl_zero if self.kl_zero else float("nan"),
            dead_share=float((shares == 0).double().mean()),
            dense_share=float((shares > DENSE).double().mean()),
            density_histogram=density_histogram(shares),
        )


def density_histogram(shares: Tensor) -> list[int]:
    """How many features of `shares [d_sae]` never fire, then how many lie in each bin of `HISTOGRAM`; sums to d_sae."""
    import torch

    alive = shares[shares > 0].double().log10().clamp(HISTOGRAM[0], HISTOGRAM[-1])
    counts = torch.histogram(alive.cpu(), torch.tensor(HISTOGRAM, dtype=torch.float64)).hist
    return [int((shares == 0).sum()), *(int(count) for count in counts)]


def density(sae: SparseAutoencoder, activations: Sequence[Tensor]) -> Tensor:
    """Share of tokens on which each feature fires [d_sae], over the given [n, d_model] tensors."""
    import torch

    count = torch.zeros(sae.d_sae, dtype=torch.float64)
    total = 0
    for part in activations:
        for piece in pieces(part, sae.d_sae):
            count += (sae.encode(piece.float()) != 0).sum(0).cpu().double()
            total += len(piece)
    return (count / max(total, 1)).float()
