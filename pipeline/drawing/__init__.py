"""Charts (Vega-Lite) and pictures for people. Knows nothing of networks or reports.

Imports images alone.
"""
