"""Tests of `pushd.auth`."""
