"""A developer's inbox: what the capture provider kept, as its recipients would see it."""
