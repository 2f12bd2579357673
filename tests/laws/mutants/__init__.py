"""Planted bugs. A law that no bug breaks says nothing, and a bug that no law notices is a law that is missing."""
