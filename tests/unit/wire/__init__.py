"""Tests of `pushd.wire`."""
