"""Distillation: teachers, losses, and the tasks that students learn."""
