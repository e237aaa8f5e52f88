"""Torture: the largest legal and illegal inputs for every endpoint, and how long each holds the reactor."""
