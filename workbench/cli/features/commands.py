"""`workbench features`: where features fire. An index of all of them, made once, asked by feature, by text and by trait."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ..options import (
    DEFAULT_MODEL,
    DeviceOption,
    DtypeOption,
    JsonOption,
    ModelOption,
    PlanOption,
    QuietOption,
    SaeOption,
)
from . import show as features_show

if TYPE_CHECKING:
    from workbench.labeling.contexts.stats import FeatureStats

IndexOption = Annotated[
    Path | None, typer.Option("--index", help="Folder of the index. [default: runs/features/<id of the SAE>]")
]

app = typer.Typer()


@app.callback()
def group() -> None:
    """Where features fire."""


app.command(name="show", no_args_is_help=True)(features_show.command)


@app.command()
def index(
    sae: SaeOption = None,
    model: ModelOption = None,
    tokens: Annotated[int, typer.Option("--tokens", min=2, help="Tokens to read at most.")] = 1_000_000,
    rollouts: Annotated[
        list[Path] | None, typer.Option("--rollouts", help="A run folder whose rollouts are read (may be given more than once).")
    ] = None,
    texts: Annotated[
        list[Path] | None,
        typer.Option("--texts", help="Your own .txt or .jsonl file, read instead of OpenWebText and Wikipedia (more than once)."),
    ] = None,
    chats: Annotated[int, typer.Option("--chats", min=0, help="Chats of the model on held-out prompts, sampled once.")] = 200,
    out: Annotated[Path | None, typer.Option("--out", help="Its folder. [default: runs/features/<id of the SAE>]")] = None,
    engine: Annotated[
        Literal["local", "ray"], typer.Option("--engine", help="Where it is read: here, or its pieces as tasks of a Ray cluster.")
    ] = "local",
    address: Annotated[str | None, typer.Option("--address", help="The Ray cluster's. [default: RAY_ADDRESS, or local]")] = None,
    seed: Annotated[int, typer.Option("--seed", help="Seed of everything that is drawn.")] = 0,
    dtype: DtypeOption = None,
    device: DeviceOption = None,
    plan: PlanOption = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Make the index: where every feature of an SAE fires.

    One pass over rollouts, chats and texts, kept on disk. Stopped half-way, the same command goes on after the last finished
    piece. On a cluster (--engine ray) the files are those of a run here.
    """
    from workbench.base.progress import duration
    from workbench.base.settings import setting

    from ..console import emit, reserved_output, say, table
    from .index import IndexJob

    name = str(setting("model", model, DEFAULT_MODEL))
    weights = str(setting("dtype", dtype, "float32"))
    job = IndexJob(
        name, setting("sae", sae), tokens, rollouts or (), texts or (), chats, out, seed, weights, device, engine, address
    )
    with reserved_output(as_json, quiet):
        value = job.plan() if plan else job.run()

    def show() -> None:
        if plan:
            steps = [(step["step"], duration(step["seconds"])) for step in value["steps"]]
            table(value["what"], ("step", "about"), [*steps, ("in all", duration(value["seconds"]))], right=(1,))
            say(f"{value['folder']}: about {value['disk_bytes'] / 1e6:,.0f} MB, memory {value['memory_bytes'] / 1e6:,.0f} MB")
            say(value["note"])
            return
        counted = f"{value['n_dead']:,} of them silent, on {value['n_tokens']:,} tokens"
        say(f"{value['n_features']:,} features of {value['sae']}, {counted}")
        table("", ("source", "tokens"), [(name, f"{n:,}") for name, n in value["sources"].items()], right=(1,))
        say(value["folder"])

    emit(value, as_json=as_json, show=show)


@app.command()
def stats(
    feature: Annotated[int, typer.Argument(metavar="FEATURE", help="The number of a feature.")],
    index: IndexOption = None,
    sae: SaeOption = None,
    model: ModelOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """What an index counted of one feature."""
    from workbench.base.settings import setting

    from ..console import emit, reserved_output
    from .index import opened_index

    with reserved_output(as_json, quiet):
        found = opened_index(index, setting("sae", sae), str(setting("model", model, DEFAULT_MODEL))).stats(feature)
    emit(found, as_json=as_json, show=lambda: _show_stats(found))


@app.command()
def search(
    text: Annotated[str, typer.Argument(metavar="TEXT", help="A text.")],
    index: IndexOption = None,
    sae: SaeOption = None,
    model: ModelOption = None,
    n: Annotated[int, typer.Option("--top", min=1, help="Features per token.")] = 5,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """What fires on a text, token by token."""
    from workbench.base.settings import setting

    from ..console import emit, reserved_output, table
    from .index import opened_index

    with reserved_output(as_json, quiet):
        opened = opened_index(index, setting("sae", sae), str(setting("model", model, DEFAULT_MODEL)), loaded=True)
        found = opened.search(text, n=n)
        usual = {f: opened.stats(f).maximum for one in found for f, _ in one.features}

    def row(one: Any) -> tuple[Any, ...]:
        listed = (f"{f} ({value:.3g} of {usual[f]:.3g})" for f, value in one.features)
        return one.position, _clean(repr(one.token)), "  ".join(listed) if one.counts else "does not count"

    columns = ("", "token", "features (activation, of the largest in the index)")
    value = {"tokens": found, "largest": usual}
    emit(value, as_json=as_json, show=lambda: table("", columns, [row(one) for one in found], right=(0,)))


@app.command()
def trait(
    name: Annotated[str, typer.Argument(metavar="TRAIT", help="A trait whose rollouts are in the index.")],
    index: IndexOption = None,
    sae: SaeOption = None,
    model: ModelOption = None,
    n: Annotated[int, typer.Option("--top", min=1, help="How many features.")] = 20,
    by: Annotated[str, typer.Option("--by", help="mean (activation) or density (share of tokens).")] = "mean",
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Which features fire more, or less, when a trait shows.

    In the positive rollouts of the trait, against the negative ones.
    """
    from workbench.base.settings import setting

    from ..console import emit, percent, reserved_output, signed, table
    from .index import opened_index

    with reserved_output(as_json, quiet):
        opened = opened_index(index, setting("sae", sae), str(setting("model", model, DEFAULT_MODEL)))
        found = opened.for_trait(name, n=n, by=by)
    columns = ("feature", "difference", "positive", "negative", "neutral")
    rows = [
        (c.feature, signed(c.difference), percent(c.positive.density), percent(c.negative.density),
         percent(c.neutral.density if c.neutral else None))
        for c in found
    ]  # fmt: skip
    listed = [{**vars(c), "difference": c.difference, "density_difference": c.density_difference} for c in found]
    value = {"trait": name, "by": by, "features": listed}
    title = "mean activation over all tokens, positive minus negative; then the share of tokens that it fires on"
    emit(value, as_json=as_json, show=lambda: table(title, columns, rows, right=(0, 1, 2, 3, 4)))


def _show_stats(found: FeatureStats) -> None:
    from ..console import percent, say, table

    say(f"feature {found.feature}: fires on {percent(found.density)} of {found.n_tokens:,} tokens, "
        f"mean {found.mean:.3g} where it fires, at most {found.maximum:.3g}")  # fmt: skip
    say(f"first tokens {percent(found.first_token_share)}, one token {percent(found.single_token_share)} of its firings")
    named = [*found.kinds.items(), *found.roles.items(), *found.sources.items()]
    places = [(f"position {a} to {'the end' if b is None else b}", rate) for a, b, rate in found.positions]
    every = [*named, *places]
    rows = [(_clean(what), f"{r.n_tokens:,}", f"{r.n_fired:,}", percent(r.density), f"{r.mean:.3g}") for what, r in every]
    table("", ("where", "tokens", "fires", "share", "mean"), rows, right=(1, 2, 3, 4))
    table("", ("token", "times", "share"), [(_clean(repr(t.text)), t.count, percent(t.share)) for t in found.top_tokens[:10]],
          right=(1, 2))  # fmt: skip
    exact = "exact" if found.partners_share == 1.0 else f"from {percent(found.partners_share)} of the documents"
    partners = [(p.feature, p.together, f"{p.cosine:.3f}", percent(p.share)) for p in found.partners]
    table(f"fires together with ({exact})", ("feature", "tokens", "cosine", "of its tokens"), partners, right=(0, 1, 2, 3))


def _clean(text: str) -> str:
    from workbench.reports.text import clean

    return clean(text)
