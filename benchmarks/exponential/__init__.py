"""One word a token by the exponential mechanism, side by side: torch, what others publish, privkt."""
