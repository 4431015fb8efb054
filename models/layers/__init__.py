"""Layers that three or more networks share. Imports torch alone."""
