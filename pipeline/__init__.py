"""The steps of the pipeline, each an ordinary function that runs without Ray or Prefect."""
