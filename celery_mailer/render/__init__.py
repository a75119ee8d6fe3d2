"""The first stage: from what the caller gave to what the recipient will read."""
