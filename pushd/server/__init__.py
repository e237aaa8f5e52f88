"""From a socket to a request."""
