"""Tests of `pushd.config`."""
