"""`python -m pipeline.training`: train a recipe on this machine."""

from pipeline.training.train import main

main()
