"""What a tensor model gives, and what it is made of.

A `Quantity` is a Cartesian tensor of a structure (or of each atom) that is a sum of irreps, each of them once:

    T = sum_o s_o E_o,      E_o . E_o' = delta_oo',                                                     (1)

with the components s on the last bond of the train and orthonormal Cartesian tensors E, so that |T|^2 = |s|^2: an error of the
components is an error of the tensor, in every orientation.

============  ==================  ==============  ====================================================
form          irreps              Cartesian       E_o
============  ==================  ==============  ====================================================
scalar        0e                  ()              1
vector        1o                  (3,)            unit vectors y, z, x: the order m = -1, 0, 1
axial         1e                  (3,)            the same; does not change sign under inversion
traceless     2e                  (3, 3)          C^{2m}_{1a,1b}: symmetric, without trace
symmetric     0e + 2e             (3, 3)          1/√3, and those of traceless
matrix        0e + 1e + 2e        (3, 3)          the same and C^{1m}_{1a,1b}: any matrix
============  ==================  ==============  ====================================================

A dipole with `charges` has one scalar more on the last bond, the charge of the atom: see `etnpot.potential.tensor`. Where 0e is
among the irreps, and for charges, a constant by species is added: the parameters `offsets` [species, scalars].
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from functools import cache, cached_property
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from etnpot.errors import SpecificationError
from etnpot.network import SCALAR, Bond
from etnpot.potential.spec import NetworkSpec, check_fields
from etnpot.so3 import Irrep, clebsch_gordan

__all__ = ["FORMS", "QUANTITIES", "Quantity", "TensorSpec"]

Floats = NDArray[np.float64]

#: Irreps of each form.
FORMS: dict[str, tuple[Irrep, ...]] = {
    "scalar": (SCALAR,),
    "vector": (Irrep(1, -1),),
    "axial": (Irrep(1, 1),),
    "traceless": (Irrep(2, 1),),
    "symmetric": (SCALAR, Irrep(2, 1)),
    "matrix": (SCALAR, Irrep(1, 1), Irrep(2, 1)),
}
_SHAPES: dict[str, tuple[int, ...]] = {"scalar": (), "vector": (3,), "axial": (3,)}
#: Cartesian axes in the order of the harmonics m = -1, 0, 1.
_CARTESIAN_OF_M = (1, 2, 0)


@dataclass(frozen=True)
class Quantity:
    """What a tensor model gives.

    Parameters
    ----------
    name : str
        Under which labels are looked for and results are filed.
    form : str
        Of the table above.
    per_atom : bool
        One tensor for each atom; else their sum.
    charges : bool
        The dipole of a molecule as a sum of atomic charges and atomic dipoles; of form "vector" only.
    unit : str
        In words; numbers are not converted.
    """

    name: str
    form: str
    per_atom: bool = False
    charges: bool = False
    unit: str = ""

    def __post_init__(self) -> None:
        for field in ("name", "unit"):
            if not isinstance(getattr(self, field), str) or len(getattr(self, field)) > 100:
                raise SpecificationError(f"{field}: expected a short text, got {getattr(self, field)!r:.100}")
        if not self.name:
            raise SpecificationError("name: the quantity needs a name, such as 'dipole'")
        if not isinstance(self.form, str) or self.form not in FORMS:
            raise SpecificationError(f"form: expected one of {', '.join(FORMS)}, got {self.form!r}")
        for field in ("per_atom", "charges"):
            if not isinstance(getattr(self, field), bool):
                raise SpecificationError(f"{field}: expected true or false, got {getattr(self, field)!r}")
        if self.charges and (self.form != "vector" or self.per_atom):
            raise SpecificationError("charges: only the dipole of a whole molecule (form vector) has them")

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the Cartesian tensor."""
        return _SHAPES.get(self.form, (3, 3))

    @cached_property
    def bond(self) -> Bond:
        """The last bond of the train."""
        ranks = dict.fromkeys(FORMS[self.form], 1)
        if self.charges:
            ranks[SCALAR] = 1
        return Bond.of(ranks)

    @property
    def n_scalars(self) -> int:
        """Copies of 0e on the last bond: 0 or 1."""
        return self.bond.rank(SCALAR)

    @property
    def n_components(self) -> int:
        """Components of the tensor, those of charges not counted."""
        return sum(irrep.dim for irrep in FORMS[self.form])

    @property
    def components(self) -> slice:
        """Where they are on the last bond."""
        return slice(int(self.charges), int(self.charges) + self.n_components)

    @property
    def basis(self) -> Floats:
        """E of eq. (1), float64 [o, *shape]."""
        return _basis(self.form)

    def to_cartesian(self, components: Floats) -> Floats:
        """Eq. (1): [..., o] to [..., *shape]."""
        return np.asarray(np.tensordot(components, self.basis, axes=(-1, 0)))

    def to_components(self, tensor: Floats) -> Floats:
        """The inverse of `to_cartesian`, [..., *shape] to [..., o]; what is not of this form is projected out."""
        flat = tensor.reshape(*tensor.shape[: tensor.ndim - len(self.shape)], -1)
        return np.asarray(flat @ self.basis.reshape(self.n_components, -1).T)

    @classmethod
    def from_dict(cls, values: Any) -> Quantity:
        """From plain values; unknown and missing fields are named."""
        if not isinstance(values, Mapping):
            raise SpecificationError(f"quantity: expected a mapping of fields, got {values!r:.100}")
        check_fields("quantity", values, {field.name for field in fields(cls)})
        return cls(**values)


#: Quantities that have a name of their own.
QUANTITIES: dict[str, Quantity] = {
    "dipole": Quantity("dipole", "vector", unit="e Å"),
    "polarizability": Quantity("polarizability", "symmetric", unit="e²Å²/eV"),
    "charges": Quantity("charges", "scalar", per_atom=True, unit="e"),
}


@cache
def _basis(form: str) -> Floats:
    axes = np.eye(3)[list(_CARTESIAN_OF_M)]
    parts: list[Floats] = []
    for irrep in FORMS[form]:
        if form == "scalar":
            parts.append(np.ones(1))
        elif form in ("vector", "axial"):
            parts.append(axes)
        elif irrep.l == 0:
            parts.append(np.eye(3)[None] / np.sqrt(3.0))
        else:
            parts.append(np.einsum("abm,ac,bd->mcd", clebsch_gordan(1, 1, irrep.l), axes, axes))
    basis = np.concatenate(parts)
    basis.flags.writeable = False
    return basis


@dataclass(frozen=True)
class TensorSpec(NetworkSpec):
    """What a tensor model is made of; validated when made, never changed.

    Parameters
    ----------
    species, radial, l_max, channels, species_form, species_rank, embedding, bonds, neighbor_scale
        As of `NetworkSpec`; the last bond is that of the quantity.
    quantity : Quantity
    """

    quantity: Quantity

    constants: ClassVar[str] = "offsets"

    def _check_output(self, bond: Bond) -> None:
        if not isinstance(self.quantity, Quantity):
            raise SpecificationError(f"quantity: expected a Quantity, got {type(self.quantity).__name__}")
        if bond != self.quantity.bond:
            raise SpecificationError(f"bonds: the last bond is {self.quantity.bond}, got {bond}")

    @property
    def _constant_shapes(self) -> dict[str, tuple[int, ...]]:
        n_scalars = self.quantity.n_scalars
        return {self.constants: (self.n_species, n_scalars)} if n_scalars else {}

    def to_dict(self) -> dict[str, Any]:
        """Plain values for the file; `from_dict` is the inverse."""
        return {**super().to_dict(), "quantity": asdict(self.quantity)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TensorSpec:
        """Specification from plain values; unknown and missing fields are named."""
        plain = cls._plain(values)
        return cls(**{**plain, "quantity": Quantity.from_dict(plain["quantity"])})
