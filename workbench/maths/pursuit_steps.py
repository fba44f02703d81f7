"""How a greedy pursuit changes its fit once a row is chosen; `screening` does the choosing and can go back.

Index k of what is kept per step is what step k starts from; whatever lies beyond the step being made is stale. All steps work
in float64 on rows of unit length.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from .geometry import reciprocal


class PursuitSteps(ABC):
    """What all pursuits keep: the support, the residuals, and which vectors go on."""

    def __init__(self, targets: Tensor, dictionary: Tensor, scale: Tensor, n_atoms: int) -> None:
        n, d_model = targets.shape
        self.kind: dict = {"dtype": torch.float64, "device": dictionary.device}
        self.dictionary, self.scale = dictionary, scale
        # Residuals below the rounding of the inputs say nothing about further atoms.
        self.rounding = 4 * max(torch.finfo(dictionary.dtype).eps, torch.finfo(targets.dtype).eps)
        self.support = torch.full((n, n_atoms), -1, dtype=torch.int64, device=dictionary.device)
        self.residuals = torch.zeros(n, n_atoms + 1, d_model, **self.kind)
        self.residuals[:, 0] = targets
        self.floor = self.rounding * self.residuals[:, 0].norm(dim=1)
        self.running = torch.zeros(n, n_atoms + 1, dtype=torch.bool, device=dictionary.device)
        self.running[:, 0] = self.residuals[:, 0].norm(dim=1) > self.floor

    def taken(self, step: int) -> Tensor:
        """No row is chosen twice."""
        return self.support[:, :step]

    def useful(self, step: int, cosine: Tensor) -> Tensor:
        """The vectors that go on, and whose best row says something about what is left."""
        return self.running[:, step] & (cosine * self.residuals[:, step].norm(dim=1) > self.floor)

    def unit_atoms(self, rows: Tensor) -> Tensor:
        """These rows at unit length; zero where the index is -1."""
        scale = self.scale[rows].double() * (rows >= 0)
        return self.dictionary[rows].double() * scale[..., None]

    @abstractmethod
    def advance(self, step: int, cosine: Tensor, chosen: Tensor) -> None:
        """Make step `step` with the rows `chosen [n]`, whose cosines with the residuals are `cosine [n]`."""

    @abstractmethod
    def weights(self, made: int) -> Tensor:
        """The weights of the chosen rows at unit length after `made` steps: `[n, made]`."""

    def leave(self, step: int, going: Tensor, residual: Tensor) -> None:
        """Keep what step `step` leaves; a vector stops once it is rebuilt to rounding."""
        self.residuals[:, step + 1] = residual
        self.running[:, step + 1] = going & (residual.norm(dim=1) > self.floor)


class OrthogonalSteps(PursuitSteps):
    """Least squares on the support: a growing orthonormal basis (Gram-Schmidt, applied twice for accuracy)."""

    def __init__(self, targets: Tensor, dictionary: Tensor, scale: Tensor, n_atoms: int) -> None:
        super().__init__(targets, dictionary, scale, n_atoms)
        n, d_model = targets.shape
        self.basis = torch.zeros(n, n_atoms, d_model, **self.kind)
        self.triangle = torch.zeros(n, n_atoms, n_atoms, **self.kind)
        self.targets_in_basis = torch.zeros(n, n_atoms, **self.kind)

    def advance(self, step: int, cosine: Tensor, chosen: Tensor) -> None:
        """Orthogonalise the chosen rows and project them out; a row in the span of the chosen ones ends the pursuit."""
        going = self.extend(step, chosen, self.useful(step, cosine), independent=True)
        along = self.targets_in_basis[:, step, None]
        self.triangle[:, step, step].masked_fill_(~going, 1)
        self.leave(step, going, self.residuals[:, step] - along * self.basis[:, step])

    def extend(self, step: int, chosen: Tensor, going: Tensor, *, independent: bool) -> Tensor:
        """Add the chosen rows to the basis; returns which vectors go on, if rows have to be `independent`."""
        atoms, basis = self.unit_atoms(chosen), self.basis[:, :step]
        overlaps = products(basis, atoms)
        fresh = atoms - products(basis.mT, overlaps)
        again = products(basis, fresh)
        fresh = fresh - products(basis.mT, again)
        length = fresh.norm(dim=1)
        new = going & (length > self.rounding)
        going = new if independent else going
        self.basis[:, step] = fresh * (reciprocal(length) * new)[:, None]
        self.triangle[:, :step, step] = (overlaps + again) * going[:, None]
        self.triangle[:, step, step] = length * new
        self.targets_in_basis[:, step] = (self.basis[:, step] * self.residuals[:, 0]).sum(dim=1)
        self.support[:, step] = torch.where(going, chosen, -1)
        return going

    def weights(self, made: int) -> Tensor:
        """The weights of unit rows after `made` steps, by back substitution: `[n, made]`."""
        right = self.targets_in_basis[:, :made, None]
        return torch.linalg.solve_triangular(self.triangle[:, :made, :made], right, upper=True)[:, :, 0]


class NonNegativeSteps(OrthogonalSteps):
    """Non-negative least squares on the support, solved in its basis."""

    def __init__(self, targets: Tensor, dictionary: Tensor, scale: Tensor, n_atoms: int) -> None:
        super().__init__(targets, dictionary, scale, n_atoms)
        self.kept = torch.zeros(len(targets), n_atoms + 1, n_atoms, **self.kind)

    def advance(self, step: int, cosine: Tensor, chosen: Tensor) -> None:
        """Refit all chosen rows; weights may become zero and grow again."""
        from scipy.optimize import nnls

        stop = step + 1
        going = self.extend(step, chosen, self.useful(step, cosine), independent=False)
        self.kept[:, stop] = self.kept[:, step]
        for i in going.nonzero()[:, 0].tolist():
            triangle, right = self.triangle[i, :stop, :stop], self.targets_in_basis[i, :stop]
            self.kept[i, stop, :stop] = torch.from_numpy(nnls(triangle.cpu().numpy(), right.cpu().numpy())[0])
        in_basis = products(self.triangle[:, :stop, :stop], self.kept[:, stop, :stop])
        left = self.residuals[:, 0] - products(self.basis[:, :stop].mT, in_basis)
        self.leave(step, going, torch.where(going[:, None], left, self.residuals[:, step]))

    def weights(self, made: int) -> Tensor:
        """The weights of unit rows after `made` steps: `[n, made]`."""
        return self.kept[:, made, :made]


class GradientSteps(PursuitSteps):
    """One step along the gradient over the support, as long as reduces the residual most."""

    def __init__(self, targets: Tensor, dictionary: Tensor, scale: Tensor, n_atoms: int) -> None:
        super().__init__(targets, dictionary, scale, n_atoms)
        n, d_model = targets.shape
        self.atoms = torch.zeros(n, n_atoms, d_model, **self.kind)
        self.kept = torch.zeros(n, n_atoms + 1, n_atoms, **self.kind)

    def taken(self, step: int) -> Tensor:
        """A row may be chosen again: the step then only refines its weight."""
        return self.support[:, :0]

    def advance(self, step: int, cosine: Tensor, chosen: Tensor) -> None:
        """Add the chosen rows, unless they are there, and move all weights along the gradient."""
        going, stop, residual = self.useful(step, cosine), step + 1, self.residuals[:, step]
        new = going & ~(self.support[:, :step] == chosen[:, None]).any(dim=1)
        self.support[:, step] = torch.where(new, chosen, -1)
        self.atoms[:, step] = self.unit_atoms(self.support[:, step])
        gradient = products(self.atoms[:, :stop], residual) * going[:, None]
        direction = products(self.atoms[:, :stop].mT, gradient)
        size = gradient.square().sum(dim=1) * reciprocal(direction.square().sum(dim=1))
        self.kept[:, stop, :stop] = self.kept[:, step, :stop] + size[:, None] * gradient
        self.leave(step, going, residual - size[:, None] * direction)

    def weights(self, made: int) -> Tensor:
        """The weights of unit rows after `made` steps: `[n, made]`."""
        return self.kept[:, made, :made]


def products(matrices: Tensor, vectors: Tensor) -> Tensor:
    """Matrix-vector products, one per vector: several times as fast as a batched product of this shape on a CPU."""
    return torch.stack([matrix @ vector for matrix, vector in zip(matrices, vectors, strict=True)])
