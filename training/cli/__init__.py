"""The subcommands of posewright-train: each module has ``add_arguments(parser)`` and ``run(options)``."""
