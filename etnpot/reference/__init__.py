"""Slow and obvious twins of the kernels: numpy, opt_einsum, closed forms, dense couplings, no numba.

    E_i = A_0[z_i] W_1[v_i] W_2[v_i] ... W_d[v_i]
    W_k[(l1 m1 a1), (l2 m2 a2), (l3 m3 a3)] = A_k^{l1 l2 l3}[a1, a2, a3] C^{l3 m3}_{l1 m1, l2 m2}

is multilinear in the head, in every core and in the d places where the features enter. Everything here
follows from that: a derivative is the same contraction with one tensor taken out, or with unit vectors put
in its place. A twin has the name and the signature of its kernel, writes the same arrays, and shares no
formula with it beyond the definition of the model.

============  =======================================================================================
module        twins
============  =======================================================================================
`basis`       radial functions (closed forms), harmonics and their gradients
`train`       forward and adjoint pass, and both along a tangent, as contractions of a tensor network
`evaluate`    features, bonds, energies, pair derivatives
`dense`       energies and pair derivatives from the full tensor, exponential in the order
`jacobian`    derivatives of energies and pair derivatives, forces and virial by every parameter
`gradient`    the same, contracted with weights
`sites`       derivatives of the energy of every atom by the entries of the train
`outputs`     derivatives of the components of the last bond by pair vectors and parameters
`layers`      pair features, messages, and trains on given features
`messages`    messages and attention from the features of every pair, and their adjoints
`assemble`    forces and virials
`short_range` the repulsion, and what it makes of the learned energy
`pairs`       vectors of listed pairs, and which of them are within the cutoff
============  =======================================================================================
"""

from etnpot.reference import (
    assemble,
    basis,
    dense,
    evaluate,
    gradient,
    jacobian,
    layers,
    messages,
    outputs,
    pairs,
    short_range,
    sites,
    train,
)

__all__ = [
    "assemble",
    "basis",
    "dense",
    "evaluate",
    "gradient",
    "jacobian",
    "layers",
    "messages",
    "outputs",
    "pairs",
    "short_range",
    "sites",
    "train",
]
