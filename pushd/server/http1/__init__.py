"""HTTP/1.1: parser, write path and timeouts."""
