"""The transports: each carries events from the bus to one kind of client."""
