"""pushd, a push server: one event bus, spoken to over every kind of HTTP."""

__all__ = ["__version__"]

__version__ = "0.1.0"
