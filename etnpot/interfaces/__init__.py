"""Interfaces to the programs that use a potential, one module each."""
