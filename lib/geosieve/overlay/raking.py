"""Raking: scale the areas of atoms so that the atoms of every region sum to the region's exact area."""

from __future__ import annotations

import numpy as np
from scipy.sparse import csr_array, diags_array
from scipy.sparse.linalg import LinearOperator, cg

from geosieve.geo.arrays import F8, I8

TOLERANCE = 1e-9
"""Relative error of a group's sum at which raking stops."""
_SWEEPS, _STEPS = 30, 40  # sweeps of proportional fitting before each Newton step, and Newton steps
_LEAST = 1e-30  # smallest factor of an area, so that none becomes 0
_LONGEST = 2.0  # largest change of a log area in one Newton step


def rake(area: F8, groups: list[I8], targets: list[F8]) -> tuple[F8, list[F8]]:
    """Find the positive areas that reach the target sums and are nearest to `area` in relative entropy.

    `area`, shape (atoms,), in km². For each partition, `groups` has an array (atoms,) with the group of every atom, and
    `targets` an array with the required sum of each group, km², above 0.

    Iterative proportional fitting (Deming and Stephan 1940) comes first. Where it converges slowly, as with cells
    nested in cells, Newton's method on the dual of the same problem takes over.

    Returns the areas, (atoms,), and for each partition the relative error of every group. Errors above TOLERANCE remain
    where the targets contradict each other.
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
    """Relative error of every group's sum, one array per partition."""
    return [np.abs(np.bincount(g, area, t.size) / t - 1) for g, t in zip(groups, targets, strict=True)]


def _newton(area: F8, groups: list[I8], targets: list[F8]) -> F8:
    """Change of each atom's log area in one Newton step, (atoms,). No log area changes by more than `_LONGEST`."""
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
    # The groups of every partition sum to the same total. So the matrix is singular, but the equations are
    # consistent, and conjugate gradients solve them.
    scale = LinearOperator(hessian.shape, matvec=lambda x: x.ravel() / held)
    with np.errstate(all="ignore"):
        step, _ = cg(hessian, missing, rtol=1e-10, maxiter=2000, M=scale)
    change = member.T @ step
    return np.asarray(change * min(1.0, _LONGEST / max(float(np.abs(change).max()), 1e-300)))
