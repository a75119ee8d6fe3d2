"""The third stage: judges the facts that deliver left, and moves the emails on."""
