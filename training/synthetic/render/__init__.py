"""From meshes to pixels and labels."""
