"""The return path: what the world says of emails that were handed over, and what follows from it."""
