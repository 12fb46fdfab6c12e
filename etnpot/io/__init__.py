"""Files: the potential file (`etnpot.io.potential_file`) and data sets (`etnpot.io.structures`).

The modules are imported by their own names, so that reading a potential does not load the readers of data
sets.
"""
