"""HTTP/2: pushd's own server protocol (RFC 9113), on the state that the `h2` library keeps."""
