"""A laboratory of planted truth: worlds with known features, to check a method or an SAE before it is believed.

    import workbench.lab as lab
    found = lab.run(["easy", "weak"], sae="perfect", seeds=5)
    found.to_pandas()
    found.figure().save("lab.svg")

    lab.run("easy", sae=lambda world, seed: my_sae(world.directions))      # an SAE of yours
    lab.run("easy", methods={"mine": lambda vector, sae, n_atoms: scores}) # a method of yours
"""

from .dictionaries import SAES, ExactSAE, Truth, truth_of
from .difficulties import DIFFICULTIES, Difficulty
from .experiment import HOOK, Experiment, run_experiment, sample_tokens
from .laboratory import make_trial, run
from .methods import Findings, Trial
from .result import Aim, LabResult, LabRow
from .world import World, make_world

__all__ = [
    "Aim", "DIFFICULTIES", "Difficulty", "ExactSAE", "Experiment", "Findings", "HOOK", "LabResult", "LabRow", "SAES", "Trial",
    "Truth", "World", "make_trial", "make_world", "run", "run_experiment", "sample_tokens", "truth_of",
]  # fmt: skip
