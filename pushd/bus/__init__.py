"""The domain in plain Python: events, channels, patterns, the log, replay, grants, publishing and subscribing."""
