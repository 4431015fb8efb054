"""Whether servers, nodes and places to write are fit for work: what `qfactory doctor` asks."""
