"""Mechanisms for single values: exact, discrete, sampled with the system's secure randomness."""
