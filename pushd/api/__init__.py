"""The HTTP interface: publishing, channels and health, one resource each."""
