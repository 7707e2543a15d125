"""The application on a Ray cluster: replicas, autoscaling and draining by Ray Serve (an extra)."""
