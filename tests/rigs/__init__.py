"""What tests are made of: the daemon and its parts in memory, clients, keys and certificates."""
