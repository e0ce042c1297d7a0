"""POST: soft prompts tuned on a small stand-in under differential privacy, and moved to the large model."""
