"""The word for what is left to Django's message and Python's generator."""


class Unusual(Exception):
    """Something about a mail is not in the shapes that are composed directly."""
