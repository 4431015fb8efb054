"""Layers that several networks share. Imports torch alone."""
