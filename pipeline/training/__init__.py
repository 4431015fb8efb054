"""Training: the loop and its parts, pure torch; ray_train.py puts it on a cluster.

`python -m pipeline.training` runs it on one process, without Ray, Prefect and MLflow. Imports
loading, networks, recipes and datasets, never evaluation.
"""
