"""Tokens: who a client is, said by who holds a key (JSON Web Tokens, RFC 7519)."""
