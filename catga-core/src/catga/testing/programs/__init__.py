"""Whole programs against a transport: drawn or written as values, executed, judged by laws.

Needs Hypothesis (`catga-core[testing]`).
"""
