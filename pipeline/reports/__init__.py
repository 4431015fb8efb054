"""The HTML report: its data, its sections, its one page. Nothing imports this but flows/.

Imports evaluation, networks, images and drawing.
"""
