"""posewright-train: one module per subcommand."""
