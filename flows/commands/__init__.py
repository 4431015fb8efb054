"""The commands of `qfactory`, one file a group: what they are given, and what they print.

What they do is a flow's or the pipeline's. Only those that run flows import Prefect. Imports every
other folder of flows/, and the flows.
"""
