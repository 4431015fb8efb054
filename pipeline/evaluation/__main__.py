"""`python -m pipeline.evaluation`: the scores of trained weights beside JPEG's."""

from pipeline.evaluation.protocol import main

main()
