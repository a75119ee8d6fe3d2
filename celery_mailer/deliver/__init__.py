"""The second stage: the gate, the claim, then the network; it leaves facts behind, never a verdict."""
