"""A laboratory of planted truth: worlds with known features, to check a method or an SAE before it is believed.

    import workbench.lab as lab
    found = lab.run(["easy", "weak"], sae="perfect", seeds=5)
    found.to_pandas()
    found.figure().save("lab.svg")

    lab.run("easy", sae=lambda world, seed: my_sae(world.directions))      # an SAE of yours
    lab.run("easy", methods={"mine": lambda vector, sae, n_atoms: scores}) # a method of yours

`lab.run_mixtures` plants a composition in a real model: answers of sub-personas, mixed in known proportions.
"""

from .dictionaries import SAES, ExactSAE, Truth, truth_of
from .difficulties import DIFFICULTIES, Difficulty
from .experiment import HOOK, Experiment, run_experiment, sample_tokens
from .laboratory import make_trial, run
from .methods import Findings, Trial
from .mixture_study import MixtureResult, effect_sizes, run_mixtures
from .mixtures import Answers
from .result import Aim, LabResult, LabRow
from .sub_personas import SamplingDesign, SubPersonas, collect, load_sub_personas, read_answers
from .world import World, make_world

__all__ = [
    "Aim", "Answers", "DIFFICULTIES", "Difficulty", "ExactSAE", "Experiment", "Findings", "HOOK", "LabResult", "LabRow",
    "MixtureResult", "SAES", "SamplingDesign", "SubPersonas", "Trial", "Truth", "World", "collect", "effect_sizes",
    "load_sub_personas", "make_trial", "make_world", "read_answers", "run", "run_experiment", "run_mixtures",
    "sample_tokens", "truth_of",
]  # fmt: skip
