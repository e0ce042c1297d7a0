"""Mechanisms: single values, vectors, and tokens of a public vocabulary, sampled with secure randomness."""
