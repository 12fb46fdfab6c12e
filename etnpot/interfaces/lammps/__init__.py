"""LAMMPS: the pair style ``etn``, its source, its builder, and the files that it reads.

``source/`` holds the pair style in C++, which `etnpot.interfaces.lammps.build` compiles to a plugin for one LAMMPS;
`etnpot.interfaces.lammps.export` writes a potential as the plugin reads it. How to use them: docs/lammps.md.
"""
