"""What a flow or command decides before it works, without Prefect.

Which recipes come in which order, which network is meant by a name, which networks restore a
photograph and which files are read and written. Imports no other folder of flows/.
"""
