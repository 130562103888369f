"""The C of the BPF programs, shipped as package data; no Python lives here."""
