"""The store: histories that outlive the process."""
