"""Fills the tables of the pages from docs/results/."""
