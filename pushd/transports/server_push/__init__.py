"""Events as HTTP/2 server push."""
