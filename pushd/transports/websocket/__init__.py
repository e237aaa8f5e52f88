"""Events over WebSocket (RFC 6455)."""
