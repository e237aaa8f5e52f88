"""The groups in which TLS exchanges keys, which pyOpenSSL has no public way to choose."""

from __future__ import annotations

from typing import Any

from OpenSSL import SSL

__all__ = ["restrict_groups"]

_GROUPS = b"X25519:P-256:P-384"
_HYBRID = b"X25519MLKEM768:"
"""Safe from who keeps what was sent until there is a quantum computer. OpenSSL has it from 3.5 on."""

_openssl: Any = SSL
_lib = _openssl._lib


def restrict_groups(context: SSL.Context) -> None:
    """Take the groups that browsers have and Mozilla recommends, the best first.

    OpenSSL by itself also takes finite fields (ffdhe3072), X448 and P-521. One of these costs up to eight times as
    much of the processor, and a client that asks for it need not compute anything itself. Before version 47 of
    cryptography there is no way to say so, and that is how it stays.
    """
    choose = getattr(_lib, "SSL_CTX_set1_curves_list", None)
    if choose is None:
        return
    native = getattr(context, "_context")  # noqa: B009  private, and no part of the types of pyOpenSSL
    if choose(native, _HYBRID + _GROUPS) != 1:
        _lib.ERR_clear_error()
        choose(native, _GROUPS)
