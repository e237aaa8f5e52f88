"""What the application is asked before clients may do something, and what it is told afterwards."""
