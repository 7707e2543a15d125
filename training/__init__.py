"""Train, evaluate and export the bundles that the service serves."""
