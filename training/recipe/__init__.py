"""Recipes: strict TOML files that describe a training."""
