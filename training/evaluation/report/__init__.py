"""Reports on trainings and bundles as HTML pages."""
