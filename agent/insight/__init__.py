"""Findings, by what they look at. Each takes an `EniLook`, or the whole snapshot. Pure."""
