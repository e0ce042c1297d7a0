"""A small privkt plugin to start from."""
