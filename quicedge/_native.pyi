"""The compiled core. Its classes and functions are typed where their twins in Python are."""

INTERFACE: int
