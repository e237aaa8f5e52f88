"""Webhooks: authorization by the application, and notifications to it."""
