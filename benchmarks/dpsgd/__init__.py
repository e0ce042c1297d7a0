"""A whole private training step, side by side: no privacy, Opacus, fastDP, Opake, privkt."""
