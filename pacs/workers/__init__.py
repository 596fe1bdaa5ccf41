"""Several processes that serve one archive on one port: the supervisor, and the workers it starts."""
