"""HTTP/2 (RFC 9113): connections, streams and flow control."""
