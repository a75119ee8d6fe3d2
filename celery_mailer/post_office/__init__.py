"""Moving in from django-post_office: what its tables hold, made into ours.

``tables`` reads, ``repair`` mends what its format broke, ``templates``, ``files`` and ``emails`` make our
rows, ``importing`` puts them in, ``settings_lines`` says what its settings are called here. None of it
needs django-post_office to be installed.
"""
