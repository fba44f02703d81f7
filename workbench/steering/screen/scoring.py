"""Score every sample of a chat data set by projection difference: streamed, in parts on disk, resumed after a kill.

For a prompt x and the data set's reply y, along the unit direction u of a trait's vector, in norms (m: median token norm):

    own       <mean_y h - mean_y' h, u> / m        y' the model's own reply to x, sampled once per distinct prompt
    prompt    <mean_y h - h(last token of x), u> / m

Positive: the data pull the model toward the trait. Source: Chen et al. 2025 (arXiv 2507.21509), section 6 (`own`), with the cheap
form `prompt` in the place of sampling. With an SAE at the hook each reply keeps the change of its mean code, so that features can
be named for any choice of samples later.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from itertools import count, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import torch

from workbench.base.errors import WorkbenchError
from workbench.base.progress import track
from workbench.base.runs import RunFolder
from workbench.base.store import content_hash, write_parquet
from workbench.base.tensors import load_tensors, save_tensors
from workbench.decomposition.checks import check_same_site
from workbench.models.prompts import chat_template_hash
from workbench.models.sampling import Sampling

from .columns import PROMPT, TRAIT, Column, Directions, TextRules, trait_directions, with_random
from .entries import Entry, entry_of, row_of, schema_of
from .files import DataFile, Line
from .own import OwnReplies
from .reading import Reply, read_replies
from .scores import STAGE, Against, DataScores, part_file, part_metadata

if TYPE_CHECKING:
    from workbench.models.loading import Model
    from workbench.personas.placebos import PlaceboVectors
    from workbench.personas.vectors import PersonaVector
    from workbench.saes.interface import SparseAutoencoder

SCHEMA = 1
N_PILOT = 256
"""Samples whose replies give the random directions their covariance."""
MIN_PILOT = 16

Compared = tuple[Reply, torch.Tensor, torch.Tensor | None]
"""A reply, and the mean activation and mean code that it is compared with."""


@dataclass(frozen=True)
class ScreenOptions:
    """How samples are scored."""

    against: Against = "prompt"
    """"own": the model's own reply to the same prompt; "prompt": the last token of the prompt. One own reply is one draw, and its
    noise is shared by all samples of a prompt; "prompt" needs no sampling, but zero has no meaning."""
    max_tokens: int = 1024
    """Of a chat at most so many tokens are read; replies that begin later have no score."""
    sampling: Sampling = field(default_factory=partial(Sampling, max_new_tokens=48))
    """How own replies are sampled."""
    n_random: int = 20
    """Random directions, with the covariance of the first samples' replies, that are scored beside the traits."""
    label_field: str | None = None
    """The field of a record that says whether it bears the trait (true / false, 1 / 0), for AUROCs."""
    chunk: int = 128
    """Lines per part; a kill loses at most so many."""
    batch_tokens: int = 2048
    """Tokens that are read together."""
    batch_size: int = 32
    """Own replies that are sampled together."""
    seed: int = 0
    """Seed of own replies and random directions."""

    def __post_init__(self) -> None:
        if self.against not in get_args(Against):
            raise WorkbenchError(f"a score against {self.against!r}", '"own" or "prompt"', "choose one of them")
        counts = {name: getattr(self, name) for name in ("max_tokens", "chunk", "batch_tokens", "batch_size")}
        if wrong := [f"{name} = {count}" for name, count in counts.items() if count < 1]:
            raise WorkbenchError(", ".join(wrong), "counts of at least 1", "correct the options")


def score_samples(
    data: str | Path | DataFile,
    model: Model,
    vectors: Sequence[PersonaVector],
    *,
    folder: str | Path,
    sae: SparseAutoencoder | None = None,
    placebos: PlaceboVectors | None = None,
    options: ScreenOptions | None = None,
) -> DataScores:
    """The scores of every reply in `data` along every vector, kept in `folder`; an interrupted call goes on where it stopped.

    Every line ends up in the result: scored, unscored (with the reason), malformed, or blank. `placebos` and random directions
    are scored beside the traits, as controls; so are the words of the replies where a vector has the rows it was made from.
    Memory: one part, and the own replies' index.

    Raises WorkbenchError for vectors or an SAE that do not belong to the model, and for a folder that holds another screening.
    """
    options = options or ScreenOptions()
    file = data if isinstance(data, DataFile) else DataFile.open(data)
    for vector in vectors if sae is not None else ():
        check_same_site(vector, sae)
    extra = () if sae is None else (sae.hook,)
    job = _Job(file, model, trait_directions(model, vectors, placebos, extra), TextRules(vectors), sae, options, Path(folder))
    with RunFolder.open(folder) as run:
        job.claim(run)
        job.run()
        if not run.is_done(STAGE, job.key):
            run.mark_done(STAGE, job.key, lines=file.n_lines)
    return job.scores()


def screening_key(
    data: DataFile, model: Model, vectors: Sequence[PersonaVector], *, sae: SparseAutoencoder | None = None,
    placebos: PlaceboVectors | None = None, options: ScreenOptions | None = None,
) -> str:  # fmt: skip
    """The hash of all that the scores depend on: data, model, vectors, placebos, SAE and options."""
    directions = trait_directions(model, vectors, placebos, () if sae is None else (sae.hook,))
    return _key(data, model, directions, sae, options or ScreenOptions())


def _key(
    file: DataFile, model: Model, directions: Directions, sae: SparseAutoencoder | None, options: ScreenOptions
) -> str:
    model_key = [model.weights_hash, str(model.dtype), chat_template_hash(model)]
    return content_hash([SCHEMA, file.sha256, file.format, model_key, directions.hash, sae and sae.weights_hash, asdict(options)])


class _Job:
    """One data set being scored."""

    def __init__(
        self, file: DataFile, model: Model, directions: Directions, words: TextRules, sae: SparseAutoencoder | None,
        options: ScreenOptions, folder: Path,
    ) -> None:  # fmt: skip
        self.file, self.model, self.directions, self.words = file, model, directions, words
        self.sae, self.options, self.folder = sae, options, folder
        self.key = _key(file, model, directions, sae, options)
        self.own: OwnReplies | None = None

    def claim(self, run: RunFolder) -> None:
        """Write down what the folder is for; refuse one that is for something else."""
        known = run.manifest.get("screen")
        if known["key"] != self.key if known else run.manifest["stages"]:
            raise WorkbenchError(f"{self.folder} holds the scores of other data, vectors or options, or another run",
                                 "an empty folder, or one of this very screening", "choose another folder")  # fmt: skip
        run.note(screen={"key": self.key, "data": str(self.file.path), "traits": self._traits()})

    def run(self) -> None:
        """Score what is missing, part by part."""
        options = self.options
        if options.against == "own":
            self.own = OwnReplies(self.folder, self.model, self.directions.hooks, sae=self.sae, sampling=options.sampling,
                                  batch_size=options.batch_size, seed=options.seed)  # fmt: skip
        self.columns = self._columns()
        last, lines = {"line": 0, "end": 0}, None
        with track("screen", self.file.n_lines, "lines") as step:
            for number in count():
                known = part_metadata(part_file(self.folder, number))
                if known is not None:
                    step(known["line"] - last["line"])
                    last, lines = known, None
                    continue
                if lines is None:  # behind a part that is there; a lost one in between is made again from its own lines
                    lines = self.file.lines(after=last["line"], end=last["end"], label_field=options.label_field)
                if not (chunk := list(islice(lines, options.chunk))):
                    return
                self._write(number, chunk)
                last = {"line": chunk[-1].number, "end": chunk[-1].end}
                step(len(chunk))

    def scores(self) -> DataScores:
        """The finished scores."""
        sae = None if self.sae is None else self.sae.description()
        return DataScores(
            folder=self.folder, data=self.file, columns=self.columns, traits=tuple(self._traits()),
            directions={name: self.directions.of(name) for name in self._traits()}, against=self.options.against,
            model=self.model.description(), sae=sae, options=asdict(self.options), key=self.key,
        )  # fmt: skip

    def _traits(self) -> list[str]:
        return [column.name for column in self.directions.columns if column.kind == TRAIT]

    def _columns(self) -> tuple[Column, ...]:
        """Every column; the random directions are drawn once and kept, so that a resumed run has the same ones."""
        kept, options = self.folder / "random.safetensors", self.options
        if options.n_random and not kept.is_file():
            save_tensors(kept, {"means": self._pilot()})
        means = load_tensors(kept)["means"] if options.n_random else torch.empty(0)
        if len(means) >= MIN_PILOT:
            self.directions = with_random(self.model, self.directions, means, options.n_random, options.seed)
        cheap = () if self.own is None else self.directions.traits.columns
        return (*self.directions.columns, *(replace(one, kind=PROMPT) for one in cheap), *self.words.columns)

    def _pilot(self) -> torch.Tensor:
        """Mean activations `[n, n_hooks, d_model]` of the first samples' replies."""
        sampled = islice((line for line in self.file.lines() if line.sample is not None), N_PILOT)
        chats = [entry.chat for line in sampled if (entry := self._entry(line)).replies]
        found = read_replies(self.model, chats, self.directions.hooks, batch_tokens=self.options.batch_tokens)
        means = [reply.mean for _, replies in sorted(found, key=lambda pair: pair[0]) for reply in replies]
        means = [mean for mean in means if bool(torch.isfinite(mean).all())]
        return torch.stack(means) if means else torch.empty(0)

    def _entry(self, line: Line) -> Entry:
        return entry_of(line, self.model, self.options.max_tokens, own=self.own is not None)

    def _write(self, number: int, lines: list[Line]) -> None:
        import pyarrow as pa

        entries = [self._entry(line) for line in lines]
        rows = [row for entry, replies in zip(entries, self._read(entries), strict=True) for row in self._rows(entry, replies)]
        where = {"key": self.key, "line": lines[-1].number, "end": lines[-1].end}
        schema = schema_of(self.columns).with_metadata({b"screen": json.dumps(where).encode()})
        table = pa.Table.from_pylist(rows, schema=schema)
        write_parquet(part_file(self.folder, number), table)

    def _read(self, entries: Sequence[Entry]) -> list[list[Compared]]:
        """The replies of every entry, each with what it is compared with: a mean activation and a code."""
        filled = [i for i, entry in enumerate(entries) if entry.replies]
        found: list[list[Reply]] = [[] for _ in entries]
        chats = [entries[i].chat for i in filled]
        for index, replies in read_replies(self.model, chats, self.directions.hooks, sae=self.sae,
                                           batch_tokens=self.options.batch_tokens):  # fmt: skip
            found[filled[index]] = replies
        if self.own is None:
            return [[(reply, reply.before, reply.code_before) for reply in replies] for replies in found]
        own = iter(self.own.of([asked.prompt for i in filled for asked in entries[i].replies]))
        return [[(reply, *next(own)) for reply in replies] for replies in found]

    def _rows(self, entry: Entry, compared: Sequence[Compared]) -> Iterator[dict[str, Any]]:
        yield from entry.unscored
        if not compared:
            return
        replies = [reply for reply, _, _ in compared]
        means = torch.stack([reply.mean for reply in replies])
        values = [self.directions.scores(means - torch.stack([mean for _, mean, _ in compared]))]
        if self.own is not None:
            values.append(self.directions.traits.scores(means - torch.stack([reply.before for reply in replies])))
        values.append(torch.from_numpy(self.words.scores([one.text for one in entry.replies])).float())
        for asked, (reply, _, code), scores in zip(entry.replies, compared, torch.cat(values, dim=1), strict=True):
            yield row_of(entry, asked, reply, self.columns, scores, code_before=code, against=self.options.against)
