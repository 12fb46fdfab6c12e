"""Fitting: data sets, local solves, sweeps, polish and reports."""
