"""FedCoT: perturbed questions go out, rationales come back, a small model learns to answer and to explain."""
