"""What a network costs and which pixels it depends on. Imports models and its layers."""
