"""Areas of atoms scaled so that the atoms of every region sum to the region's exact area (raking)."""

from __future__ import annotations

import numpy as np
from scipy.sparse import csr_array, diags_array
from scipy.sparse.linalg import LinearOperator, cg

from geosieve.geo.arrays import F8, I8

TOLERANCE = 1e-9
_SWEEPS, _STEPS = 30, 40
_LEAST = 1e-30  # of an area: none becomes 0
_LONGEST = 2.0  # greatest change of a logarithm in one step


def rake(area: F8, groups: list[I8], targets: list[F8]) -> tuple[F8, list[F8]]:
    """Positive areas, (atoms,), nearest to `area` in relative entropy whose sums over groups are the targets.

    `groups`: for each partition the group of every atom, `targets`: the sum of each group, above 0. Iterative
    proportional fitting (Deming and Stephan 1940); where that is slow, as with cells inside cells, Newton's method on
    the same problem's dual. Returns the areas and each group's relative error, which is above TOLERANCE where no areas
    of these atoms can fit.
    """
    if not groups:
        return area, []
    scaled = area.copy()
    for _ in range(_STEPS):
        for _ in range(_SWEEPS):
            for group, target in zip(groups, targets, strict=True):
                scaled = np.maximum(scaled * (target / np.bincount(group, scaled, target.size))[group], _LEAST * area)
            errors = _errors(scaled, groups, targets)
            if len(groups) == 1 or max(float(e.max()) for e in errors) <= TOLERANCE:
                return scaled, errors
        change = _newton(scaled, groups, targets)
        if not np.isfinite(change).all():
            break  # the targets contradict each other
        scaled = np.maximum(scaled * np.exp(change), _LEAST * area)
    return scaled, _errors(scaled, groups, targets)


def _errors(area: F8, groups: list[I8], targets: list[F8]) -> list[F8]:
    return [np.abs(np.bincount(g, area, t.size) / t - 1) for g, t in zip(groups, targets, strict=True)]


def _newton(area: F8, groups: list[I8], targets: list[F8]) -> F8:
    """The change of each atom's logarithm in one step of Newton's method, shortened if it is long."""
    first = np.cumsum([0, *(t.size for t in targets)])
    atoms = np.arange(area.size)
    member = csr_array(
        (
            np.ones(area.size * len(groups)),
            (np.concatenate([g + f for g, f in zip(groups, first, strict=False)]), np.tile(atoms, len(groups))),
        ),
        shape=(int(first[-1]), area.size),
    )
    held = member @ area
    missing = np.concatenate(targets) - held
    hessian = (member @ diags_array(area) @ member.T).tocsr()
    # Sums by partition are the same total, so that the matrix is singular, and its equations agree.
    scale = LinearOperator(hessian.shape, matvec=lambda x: x.ravel() / held)
    with np.errstate(all="ignore"):
        step, _ = cg(hessian, missing, rtol=1e-10, maxiter=2000, M=scale)
    change = member.T @ step
    return np.asarray(change * min(1.0, _LONGEST / max(float(np.abs(change).max()), 1e-300)))
