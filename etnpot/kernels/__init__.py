"""Compiled loops over arrays: no Atoms, no classes, no files.

Every kernel has a slow and obvious twin of the same name in `etnpot.reference`.
"""
