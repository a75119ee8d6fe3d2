"""Where the limits are kept: in Redis, in the database, or in this process; all do the same (``rules``)."""
