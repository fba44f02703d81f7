"""Fitness figures on SAEs whose fitness is known."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.saes.planted import lossless_sae, small_sae
from workbench.base.errors import WorkbenchError
from workbench.models.hookpoints import HookPoint
from workbench.models.loading import Model
from workbench.saes.evaluation import density, evaluate, evaluate_all
from workbench.saes.evaluation.fitness import density_histogram
from workbench.saes.token_rows import TokenRow


def _rows(n: int = 6) -> list[TokenRow]:
    generator = torch.Generator().manual_seed(0)
    return [
        TokenRow(tuple(torch.randint(7, 300, (12 + i,), generator=generator).tolist()), "random")
        for i in range(n)
    ]


def test_a_lossless_sae_explains_everything_and_costs_nothing(tiny_model: Model) -> None:
    figures = evaluate(lossless_sae(tiny_model.d_model, 1), tiny_model, _rows())
    assert figures.variance_explained == pytest.approx(1.0, abs=1e-6)
    assert figures.ce_recovered == pytest.approx(1.0, abs=1e-3)
    assert figures.kl == pytest.approx(0.0, abs=1e-5)
    assert figures.l0 == pytest.approx(tiny_model.d_model, rel=0.01)
    assert figures.norm_ratio == pytest.approx(1.0, abs=1e-5)
    assert figures.n_tokens == sum(len(r.ids) - 1 for r in _rows())


def test_an_sae_that_outputs_zero_recovers_nothing(tiny_model: Model) -> None:
    sae = lossless_sae(tiny_model.d_model, 1)
    silent = replace(sae, encoder=torch.zeros_like(sae.encoder), encoder_bias=torch.full((sae.d_sae,), -1.0))
    figures = evaluate(silent, tiny_model, _rows())
    assert figures.ce_recovered == pytest.approx(0.0, abs=1e-4)
    assert figures.l0 == 0
    assert figures.ce_sae == pytest.approx(figures.ce_zero)


def test_figures_do_not_depend_on_the_batch_size(tiny_model: Model) -> None:
    sae = replace(
        lossless_sae(tiny_model.d_model, 1), encoder_bias=torch.full((2 * tiny_model.d_model,), -0.3)
    )
    one, many = (
        evaluate(sae, tiny_model, _rows(), batch_tokens=16),
        evaluate(sae, tiny_model, _rows(), batch_tokens=4096),
    )
    for name, value in one.to_dict().items():
        assert getattr(many, name) == pytest.approx(value, rel=2e-4), name


def test_density_counts_the_share_of_tokens() -> None:
    sae = small_sae()
    x = torch.randn(5000, 16, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(density(sae, [x[:2000], x[2000:]]), (sae.encode(x) > 0).float().mean(0))


def _shrinking(d_model: int) -> Any:
    """A jumprelu SAE that loses something: random directions, a threshold, a bias."""
    return replace(small_sae(d_model=d_model, d_sae=3 * d_model, threshold=0.4), decoder_bias=torch.zeros(d_model))


def test_figures_are_those_of_sae_lens_on_the_same_tokens(tiny_model: Model, tmp_path: Path) -> None:
    from sae_lens import SAE
    from sae_lens.evals import get_eval_everything_config, run_evals
    from sae_lens.training.activation_scaler import ActivationScaler

    from workbench.saes.formats import saelens
    from workbench.saes.registry import load_sae

    sae = _shrinking(tiny_model.d_model)
    folder = saelens.write(sae, tmp_path / "sae", dtype="float32")
    tokens = torch.randint(7, 300, (5, 24), generator=torch.Generator().manual_seed(1))

    class FixedTokens:
        """What run_evals asks of an activation store: the same batch again and again."""

        context_size, store_batch_size_prompts = 24, 5

        def get_batch_tokens(self, batch_size: int) -> torch.Tensor:
            assert batch_size == len(tokens)
            return tokens

        def reset_input_dataset(self) -> None: ...

    library_sae: Any = SAE.load_from_disk(folder)
    library_sae.cfg.metadata.hook_name = str(sae.hook)
    theirs, features = run_evals(
        library_sae,
        FixedTokens(),
        tiny_model.bridge,
        ActivationScaler(),
        get_eval_everything_config(5, 1, 1),
        exclude_special_tokens=False,
    )
    rows = [TokenRow(tuple(row), "random") for row in tokens.tolist()]
    ours = evaluate(load_sae(folder), tiny_model, rows, n_skipped=0, sink_ratio=None)
    losses, quality = theirs["model_performance_preservation"], theirs["reconstruction_quality"]
    expected = {
        "variance_explained": quality["explained_variance"],
        "cosine": quality["cossim"],
        "norm_ratio": theirs["shrinkage"]["l2_ratio"],
        "l0": theirs["sparsity"]["l0"],
        "ce_clean": losses["ce_loss_without_sae"],
        "ce_sae": losses["ce_loss_with_sae"],
        "ce_zero": losses["ce_loss_with_ablation"],
        "ce_recovered": losses["ce_loss_score"],
    }
    for name, value in expected.items():
        assert getattr(ours, name) == pytest.approx(value, rel=2e-4), name
    assert ours.n_tokens == tokens.numel()
    shares = torch.tensor(features["feature_density"])
    assert ours.dead_share == pytest.approx(float((shares == 0).float().mean()))
    assert ours.density_histogram == density_histogram(shares)

    # The divergence is theirs once the last position, which predicts nothing, is left out of theirs.
    from sae_lens.evals import get_recons_loss

    per_position = get_recons_loss(
        library_sae, tiny_model.bridge, ActivationScaler(), tokens, compute_kl=True, compute_ce_loss=False
    )
    assert ours.kl == pytest.approx(float(per_position["kl_div_with_sae"][:, :-1].mean()), rel=1e-3)
    assert ours.kl_zero == pytest.approx(float(per_position["kl_div_with_ablation"][:, :-1].mean()), rel=1e-3)


def test_several_saes_in_one_pass_get_the_figures_that_each_gets_alone(tiny_model: Model) -> None:
    saes = [lossless_sae(tiny_model.d_model, 1), _shrinking(tiny_model.d_model)]
    together = evaluate_all(saes, tiny_model, _rows())
    for sae, figures in zip(saes, together, strict=True):
        alone = evaluate(sae, tiny_model, _rows())
        for name, value in alone.to_dict().items():
            assert getattr(figures, name) == pytest.approx(value, rel=1e-4, abs=1e-6), name


def test_figures_do_not_depend_on_how_many_codes_are_held_at_once(
    tiny_model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    sae = _shrinking(tiny_model.d_model)
    whole = evaluate(sae, tiny_model, _rows())
    monkeypatch.setattr("workbench.saes.evaluation.fitness.VALUES_AT_ONCE", 1000)
    parts = evaluate(sae, tiny_model, _rows())
    for name, value in whole.to_dict().items():
        assert getattr(parts, name) == pytest.approx(value, rel=1e-4, abs=1e-6), name


def test_an_sae_of_another_width_or_hook_is_refused(tiny_model: Model) -> None:
    with pytest.raises(WorkbenchError, match="reads d_model=16 but tiny-llama-0 has 32"):
        evaluate(small_sae(), tiny_model, _rows())
    sae = _shrinking(tiny_model.d_model)
    with pytest.raises(WorkbenchError, match=r"reads blocks\.0\.hook_resid_post"):
        evaluate_all([sae, replace(sae, hook=HookPoint(0))], tiny_model, _rows())


def test_rows_of_one_token_leave_nothing_to_measure(tiny_model: Model) -> None:
    with pytest.raises(WorkbenchError, match="No token is left"):
        evaluate(_shrinking(tiny_model.d_model), tiny_model, [TokenRow((8,), "short")])


def test_the_histogram_counts_every_feature_once() -> None:
    shares = torch.tensor([0.0, 1e-9, 1e-5, 0.002, 0.05, 0.3, 1.0])
    counts = density_histogram(shares)
    assert (counts[0], sum(counts), counts[1], counts[-1]) == (1, 7, 2, 1)


@pytest.mark.parametrize("site", ["hook_resid_pre", "hook_mlp_out", "hook_attn_out"])
def test_any_site_is_measured(tiny_model: Model, site: str) -> None:
    figures = evaluate(replace(lossless_sae(tiny_model.d_model, 1), hook=HookPoint(1, site)), tiny_model, _rows())
    assert figures.variance_explained == pytest.approx(1.0, abs=1e-6)
    assert figures.ce_sae == pytest.approx(figures.ce_clean, abs=1e-4)
    assert figures.kl_zero > figures.kl


def test_a_model_in_bfloat16_is_measured_to_its_precision() -> None:
    from tests.tiny import tiny_model as build

    model = build("qwen3")
    model.hf.to(torch.bfloat16)
    figures = evaluate(lossless_sae(model.d_model, 1), model, _rows())
    assert figures.variance_explained == pytest.approx(1.0, abs=1e-4)
    assert figures.ce_sae == pytest.approx(figures.ce_clean, abs=0.01)
